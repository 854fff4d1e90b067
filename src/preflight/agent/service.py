"""The agent: takes one coordinator at a time, holds ports and probes for it, and lets go.

Whatever ends the conversation (an orderly release, a closed connection, a coordinator that
falls silent, a message that is none of ours), the same `finally` releases every port.
"""

import asyncio
import contextlib
import ipaddress
import logging
import os
from collections.abc import Iterator
from typing import NamedTuple

import preflight
from preflight.agent.facts import gather_facts, is_own_address
from preflight.agent.lease import Lease
from preflight.agent.session import Session
from preflight.errors import PreflightError, WireError
from preflight.model.observation import Facts, Reason
from preflight.net.conversation import AgentEnd, ConversationEnded
from preflight.wire.challenge import ID_BYTES, MAX_NODE_NAME
from preflight.wire.messages import WIRE_VERSION, Greet, Refused

log = logging.getLogger("preflight.agent")

GREETING_PATIENCE = 10.0
"""Seconds that an authenticated connection may stay silent before it greets."""


class _Refusal(NamedTuple):
    reason: Reason
    why: str
    """For the coordinator's user."""


class Agent:
    """One agent process: its instance id is new with every start, so a restart shows."""

    def __init__(self, mac_key: bytes) -> None:
        self.instance = os.urandom(16)
        self._key = mac_key
        self._lease: Lease | None = None

    async def converse(self, conversation: AgentEnd) -> None:
        """Serve one coordinator until it is gone. Raises nothing for what it does wrong."""
        try:
            async with asyncio.timeout(GREETING_PATIENCE):
                greet = await conversation.receive()
        except (ConversationEnded, TimeoutError) as error:
            log.warning("%s did not greet: %s", conversation.remote, str(error) or "silence")
            return
        except WireError as error:
            await _refuse(conversation, _Refusal(Reason.VERSION, f"{_unreadable()} ({error})"))
            return
        facts = gather_facts()
        refusal = self._refusal(greet, facts)
        if refusal is not None:
            await _refuse(conversation, refusal)
            return
        assert isinstance(greet, Greet)  # anything else was refused
        self._lease = lease = Lease.begin(greet.run_id, greet.coordinator)
        log.info("leased to run %s of %s as %s", greet.run_id[:8], greet.coordinator, greet.node)
        try:
            await _serve(Session(conversation, greet, facts, lease, self.instance, self._key))
        finally:
            self._lease = None

    def _refusal(self, greet: object, facts: Facts) -> _Refusal | None:
        if not isinstance(greet, Greet):
            return _Refusal(Reason.VERSION, "the coordinator did not greet first")
        if greet.wire_version != WIRE_VERSION:
            return _Refusal(
                Reason.VERSION,
                f"this agent is preflight {preflight.__version__} (conversation {WIRE_VERSION}), "
                f"the coordinator is {greet.version} (conversation {greet.wire_version}): "
                f"install the same version on both",
            )
        if not _is_well_formed(greet):
            return _Refusal(Reason.VERSION, _unreadable())
        if self._lease is not None:
            return _Refusal(Reason.HELD, self._lease.describe())
        absent = [address for address in greet.addresses if not is_own_address(address)]
        if absent and not greet.nat:
            return _Refusal(
                Reason.NOT_ITS_ADDRESS,
                f"{', '.join(absent)} is not an address of this machine "
                f"({facts.hostname} has {', '.join(_reachable(facts)) or 'none'}): correct "
                f"nodes.{greet.node}, or set nat = true if it is translated on the way",
            )
        return None


async def _refuse(conversation: AgentEnd, refusal: _Refusal) -> None:
    log.warning("refused %s: %s", conversation.remote, refusal.why)
    # Whoever has gone already need not be told.
    with contextlib.suppress(ConversationEnded):
        await conversation.send(
            Refused(
                wire_version=WIRE_VERSION,
                version=preflight.__version__,
                detail=refusal.why,
                reason=refusal.reason,
            )
        )


async def _serve(session: Session) -> None:
    try:
        await session.run()
        log.info("released by its coordinator")
    except (ConversationEnded, PreflightError) as error:
        log.warning("the run ended early: %s", error)
    finally:
        await session.close()


def _reachable(facts: Facts) -> Iterator[str]:
    """The machine's addresses that another machine could mean."""
    for address in facts.addresses:
        one = ipaddress.ip_address(address)
        if not one.is_loopback and not one.is_link_local:
            yield address


def _is_well_formed(greet: Greet) -> bool:
    """Whether the texts of a greeting are what their types can't say."""
    try:
        run_id = bytes.fromhex(greet.run_id)
        for address in greet.addresses:
            ipaddress.ip_address(address)
    except ValueError:
        return False
    return len(run_id) == ID_BYTES and len(greet.node.encode()) <= MAX_NODE_NAME


def _unreadable() -> str:
    return (
        f"this agent is preflight {preflight.__version__} (conversation {WIRE_VERSION}) and can't "
        "read the coordinator's greeting: install the same version on both"
    )
