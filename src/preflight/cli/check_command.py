"""`preflight check`: the coordinator. Options in, the report on stdout, exit code out."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from preflight.cli.options import (
    Close,
    CloseOption,
    ClusterOption,
    FromOption,
    MaxHalfOpenOption,
    OnlyOption,
    PortOption,
    RateOption,
    ReportFormat,
    SampleOption,
    ToOption,
    print_report,
)
from preflight.cli.stopping import stop_signals

if TYPE_CHECKING:
    from preflight.coordinator.handles import Dial
    from preflight.coordinator.observer import RunObserver
    from preflight.coordinator.record import RunRecord
    from preflight.model.plan import Plan
    from preflight.model.report import Report
    from preflight.net.keys import CoordinatorKey

INTERRUPTED = 130
_OTHER_FILES = 16
"""Open files beside the conversations: the event loop's own, the run file, modules to load."""


def check(
    cluster: ClusterOption,
    format_: Annotated[
        ReportFormat, typer.Option("--format", help="The report on stdout: table or json.")
    ] = ReportFormat.TABLE,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write the run file, as observations come in; an older run file is replaced.",
        ),
    ] = None,
    only: OnlyOption = None,
    from_: FromOption = None,
    to: ToOption = None,
    port: PortOption = None,
    rate: RateOption = "5000",
    max_half_open: MaxHalfOpenOption = 20_000,
    sample: SampleOption = None,
    close: CloseOption = Close.RESET,
    deadline: Annotated[
        float | None,
        typer.Option(
            min=1,
            max=3600,
            metavar="SECONDS",
            help="Bound on the first pass; what is left undone then is untested. "
            "Default: what the plan needs at its rate.",
        ),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(
            "--key-file",
            readable=False,
            envvar="PREFLIGHT_KEY_FILE",
            help="The coordinator's key file, instead of the cluster file's key_file.",
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", metavar="", help="Degraded flows fail too.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", metavar="", help="On stderr, warnings only.")
    ] = False,
) -> None:
    """Have every agent probe every other that its role must reach, and print the report.

    Exit code: 1 if any flow fails, else 3 if any could not be tested, else 0.
    2: a wrong option or configuration. 130: interrupted.

    Example: preflight check --cluster cluster.toml --output evening.jsonl

    Gentler: preflight check --cluster cluster.toml --rate 500 --max-half-open 500 --sample 100
    """
    import asyncio

    from preflight.check import Narrowing, plan_run
    from preflight.cli.live import make_observer
    from preflight.cli.options import read_cluster, read_limits, read_narrowing
    from preflight.coordinator.record import RunRecord
    from preflight.diagnosis import exit_code
    from preflight.net.keys import load_coordinator_key

    loaded, profile = read_cluster(cluster)
    narrowing: Narrowing = read_narrowing(only, from_, to, port)
    limits = read_limits(rate, max_half_open, sample, close)
    plan = plan_run(loaded, profile, narrowing, limits=limits, deadline=deadline)
    key = load_coordinator_key(_key_path(cluster, loaded.key_file, key_file))
    _provide_descriptors(plan)
    with (
        RunRecord(output) as record,
        make_observer(
            sys.stderr, quiet=quiet, nodes=[node.name for node in plan.nodes]
        ) as observer,
    ):
        for warning in (*loaded.warnings, *key.warnings):
            observer.warn(warning)
        report = asyncio.run(_run(plan, key, observer, record, strict=strict))
    if record.problem:
        print(f"preflight: {record.problem}", file=sys.stderr)
    print_report(report, format_)
    raise typer.Exit(INTERRUPTED if report.interrupted else exit_code(report))


def _key_path(cluster: Path, in_cluster: str | None, option: Path | None) -> Path:
    from preflight.errors import ConfigError

    if option is not None:
        return option
    if in_cluster is None:
        raise ConfigError(
            'no key file is named: add key_file = "cluster.key" to it, or use --key-file '
            "(`preflight key --out cluster.key` makes one)",
            file=str(cluster),
        )
    return Path(in_cluster)


async def _run(
    plan: "Plan",
    key: "CoordinatorKey",
    observer: "RunObserver",
    record: "RunRecord",
    *,
    strict: bool,
) -> "Report":
    import asyncio

    from preflight.check import check as check_plan

    stop = asyncio.Event()
    work = asyncio.current_task()
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        if stop.is_set() and work is not None:
            work.cancel()  # the second Ctrl-C: not even the release is waited for
            return
        observer.warn("stopping: what was learned is collected; press Ctrl-C again to quit at once")
        stop.set()

    for number in stop_signals():
        loop.add_signal_handler(number, interrupt)
    try:
        return await check_plan(plan, _dialler(key), observer, record, stop, strict=strict)
    except asyncio.CancelledError:
        raise typer.Exit(INTERRUPTED) from None


def _provide_descriptors(plan: "Plan") -> None:
    """Raise the limit of open files to the hard one. Raises `LimitError` where that is too low."""
    from preflight.errors import LimitError
    from preflight.net.dialling import descriptors_for_dialling
    from preflight.net.limits import open_descriptors, raise_descriptor_limit

    limit = raise_descriptor_limit()
    agents = descriptors_for_dialling(len(plan.nodes), plan.limits.greet)
    needed = open_descriptors() + agents + _OTHER_FILES
    if limit < needed:
        raise LimitError(
            f"calling {len(plan.nodes)} agents needs {needed} open files, and the hard limit of "
            f"this process is {limit}: raise it (ulimit -Hn)"
        )


def _dialler(key: "CoordinatorKey") -> "Dial":
    """How this command reaches agents: by TLS, or inside this process where embedded."""
    import asyncio
    import logging

    from preflight.agent.service import Agent
    from preflight.model.plan import PlannedNode
    from preflight.net.conversation import AgentEnd, CoordinatorEnd, conversation_in_process
    from preflight.net.dialling import dial_agent
    from preflight.net.tls import coordinator_context

    context = coordinator_context(key)
    # What an embedded agent has to say, the report says.
    logging.getLogger("preflight").addHandler(logging.NullHandler())
    embedded: list[asyncio.Task[None]] = []

    async def dial(node: PlannedNode, patience: float) -> CoordinatorEnd:
        if not node.embedded:
            return await dial_agent(node.control_host, node.control_port, context, patience)
        ours, theirs = await conversation_in_process()
        embedded.append(asyncio.create_task(serve(theirs)))
        return ours

    async def serve(conversation: AgentEnd) -> None:
        try:
            await Agent(key.mac_key).converse(conversation)
        finally:
            await conversation.close()

    return dial
