"""`preflight serve`: the agent of one node."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from preflight.cli.stopping import stop_signals
from preflight.errors import ConfigError, PreflightError
from preflight.model.cluster import DEFAULT_CONTROL_PORT

if TYPE_CHECKING:
    from preflight.net.keys import AgentKey

_ALL_ADDRESSES = ("0.0.0.0", "[::]", "*")  # noqa: S104 - as users write it


def serve(
    key_file: Annotated[
        Path,
        typer.Option(
            "--key-file",
            readable=False,
            envvar="PREFLIGHT_KEY_FILE",
            help="The agents' key file, NAME.agent.key.",
        ),
    ],
    control: Annotated[
        str | None,
        typer.Option(
            "--control",
            metavar="ADDRESS:PORT",
            help="Where the coordinator reaches this agent. "
            f"Default: port {DEFAULT_CONTROL_PORT} on all addresses of both families.",
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", metavar="", help="Say more on stderr.")
    ] = False,
) -> None:
    """Run the agent of this node until SIGTERM or Ctrl-C.

    It needs no list of ports: the coordinator sends the plan. Ports are held only while a
    coordinator with the cluster's key leases this agent.

    Example: preflight serve --key-file cluster.agent.key
    """
    import asyncio
    import logging

    from preflight.net.keys import load_agent_key

    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
    )
    # asyncio's own debug lines are about our sockets, not about the cluster.
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    host, port = _listening_place(control)
    key = load_agent_key(key_file)
    for warning in key.warnings:
        logging.getLogger("preflight").warning(warning)
    asyncio.run(_serve(key, host, port))


def _listening_place(control: str | None) -> tuple[str | None, int]:
    """Where to listen; the host is None for all addresses of both families."""
    if control is None or control in {*_ALL_ADDRESSES, "::"}:
        return None, DEFAULT_CONTROL_PORT
    if control.isdecimal():
        raise ConfigError(f"a port alone is written :{control}", path="--control")
    from preflight.config.addresses import literal_addresses_only, read_control
    from preflight.config.reading import Place

    for everywhere in (*_ALL_ADDRESSES, ""):
        port = control.removeprefix(f"{everywhere}:")
        if port != control and ":" not in port:
            # Any loopback address stands in, so that the port is read by the one reader there is.
            control = f"127.0.0.1:{port}"
            return None, read_control(control, literal_addresses_only, Place("--control"))[1]
    return read_control(control, literal_addresses_only, Place("--control"))


def _holder(host: str | None, port: int) -> str:
    """Who is in the way of our control port: on all addresses, whoever has it on any."""
    from preflight.agent.facts import UNKNOWN, PortOwners, own_addresses

    owners = PortOwners()
    places = [host] if host is not None else ["0.0.0.0", *own_addresses()]  # noqa: S104 - as asked
    found = (owners.find("tcp", place, port) for place in places)
    return next((owner for owner in found if owner is not UNKNOWN), UNKNOWN).text


async def _serve(key: "AgentKey", host: str | None, port: int) -> None:
    import asyncio
    import logging

    from preflight.agent.service import Agent
    from preflight.net.binding import PortOccupied
    from preflight.net.control import ControlListener
    from preflight.net.limits import raise_descriptor_limit
    from preflight.net.tls import agent_context

    raise_descriptor_limit()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in stop_signals():
        loop.add_signal_handler(number, stop.set)
    agent = Agent(key.mac_key)
    listener = ControlListener(agent_context(key), agent.converse)
    try:
        await listener.start(host, port)
    except PreflightError as error:
        if not isinstance(error.__cause__, PortOccupied):
            raise
        raise PreflightError(
            f"{error}, held by {_holder(host, port)}: stop that, or take another port "
            "(--control :PORT here, and nodes.NAME.control in the cluster file)"
        ) from error
    log = logging.getLogger("preflight")
    log.info(
        "agent %s waits for its coordinator on %s",
        agent.instance.hex()[:8],
        ", ".join(listener.addresses),
    )
    try:
        await stop.wait()
        log.info("stopping")
    finally:
        await listener.close()
