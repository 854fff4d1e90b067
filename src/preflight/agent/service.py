"""The agent: takes one coordinator at a time, holds ports and probes for it, and lets go.

Whatever ends the conversation (an orderly release, a closed connection, a coordinator that
falls silent, a message that is none of ours), the same `finally` releases every port.
"""

import asyncio
import ipaddress
import logging
import os
import time
from typing import TypeVar

from msgspec import structs

import preflight
from preflight.agent.facts import gather_facts, is_own_address
from preflight.agent.lease import LEASE_SECONDS, Lease
from preflight.agent.listeners import Listeners
from preflight.errors import LimitError, PreflightError, WireError
from preflight.model.observation import (
    Confirmation,
    Facts,
    ListenerCount,
    ListenerState,
    Outcome,
    Sighting,
)
from preflight.net.conversation import AgentEnd, ConversationEnded
from preflight.probes import ProbeContext, run_probes
from preflight.wire.messages import (
    WIRE_VERSION,
    Ask,
    Beat,
    Done,
    Greet,
    Held,
    Hold,
    Progress,
    Refused,
    Release,
    Released,
    Results,
    Seen,
    Start,
    Welcome,
)

Placed = TypeVar("Placed", ListenerState, ListenerCount, Sighting)

log = logging.getLogger("preflight.agent")

GREETING_PATIENCE = 10.0
"""Seconds that an authenticated connection may stay silent before it greets."""


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
        except (ConversationEnded, WireError, TimeoutError) as error:
            log.warning("%s did not greet: %s", conversation.remote, str(error) or "silence")
            return
        facts = gather_facts()
        refusal = self._refusal(greet, facts)
        if refusal is not None:
            log.warning("refused %s: %s", conversation.remote, refusal)
            await conversation.send(
                Refused(wire_version=WIRE_VERSION, version=preflight.__version__, detail=refusal)
            )
            return
        assert isinstance(greet, Greet)  # anything else was refused
        self._lease = lease = Lease.begin(greet.run_id, greet.coordinator)
        log.info("leased to run %s of %s as %s", greet.run_id[:8], greet.coordinator, greet.node)
        session = _Session(conversation, greet, facts, lease, self.instance, self._key)
        try:
            await session.run()
            log.info("released by its coordinator")
        except (ConversationEnded, PreflightError) as error:
            log.warning("the run ended early: %s", error)
        finally:
            await session.close()
            self._lease = None

    def _refusal(self, greet: object, facts: Facts) -> str | None:
        if not isinstance(greet, Greet):
            return "the coordinator did not greet first"
        if greet.wire_version != WIRE_VERSION:
            return (
                f"this agent is preflight {preflight.__version__} (conversation {WIRE_VERSION}), "
                f"the coordinator is {greet.version} (conversation {greet.wire_version}): "
                f"install the same version on both"
            )
        if self._lease is not None:
            return self._lease.describe()
        absent = [address for address in greet.addresses if not is_own_address(address)]
        if absent and not greet.nat:
            return (
                f"{', '.join(absent)} is not an address of this machine "
                f"({facts.hostname} has {', '.join(facts.addresses)}): correct "
                f"nodes.{greet.node}, or set nat = true if it is translated on the way"
            )
        return None


class _Session:
    """One lease: what an agent does for one run, from Welcome to the release of everything."""

    def __init__(
        self,
        conversation: AgentEnd,
        greet: Greet,
        facts: Facts,
        lease: Lease,
        instance: bytes,
        key: bytes,
    ) -> None:
        self._conversation = conversation
        self._greet = greet
        self._facts = facts
        self._lease = lease
        self._instance = instance
        self._key = key
        self._run_id = bytes.fromhex(greet.run_id)
        self._translation = _translation(greet, conversation.local_address)
        self._planned = {bound: planned for planned, bound in self._translation.items()}
        self._listeners = Listeners(
            node=greet.node, run_id=self._run_id, instance=instance, key=key
        )
        self._probing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Until the release. Raises `ConversationEnded` or `PreflightError`."""
        await self._conversation.send(
            Welcome(
                wire_version=WIRE_VERSION,
                version=preflight.__version__,
                instance=self._instance.hex(),
                time=time.time(),
                facts=self._facts,
                bind_addresses=tuple(
                    self._translation.get(address, address) for address in self._greet.addresses
                ),
            )
        )
        while True:
            try:
                async with asyncio.timeout(LEASE_SECONDS):
                    message = await self._conversation.receive()
            except TimeoutError:
                raise ConversationEnded(
                    f"nothing was heard of the coordinator for {LEASE_SECONDS:.0f} s"
                ) from None
            self._lease.renew()
            match message:
                case Beat():
                    await self._conversation.send(Beat())
                case Hold():
                    await self._hold(message)
                case Start():
                    await self._stop_probing()
                    self._probing = asyncio.create_task(self._probe(message))
                case Ask():
                    await self._stop_probing()
                    await self._conversation.send(self._seen(message))
                case Release():
                    await self.close()
                    await self._conversation.send(Released())
                    return
                case Greet():
                    raise WireError("greeted twice")

    async def close(self) -> None:
        """Stop probing and let go of every port. May be called again."""
        await self._stop_probing()
        await self._listeners.release()

    async def _hold(self, message: Hold) -> None:
        to_bind = [
            structs.replace(listen, address=self._translation.get(listen.address, listen.address))
            for listen in message.listens
        ]
        try:
            states = await self._listeners.hold(to_bind)
        except LimitError as error:
            await self._conversation.send(
                Refused(wire_version=WIRE_VERSION, version=preflight.__version__, detail=str(error))
            )
            raise
        await self._conversation.send(
            Held(listeners=tuple(self._as_planned(state) for state in states))
        )

    async def _probe(self, message: Start) -> None:
        """Probe, and tell the results as they come. The conversation's end is seen by `run`."""
        outcomes: list[Outcome] = []
        finished = 0
        news = asyncio.Event()

        def on_outcomes(found: tuple[Outcome, ...]) -> None:
            outcomes.extend(found)
            news.set()

        def on_finished(count: int) -> None:
            nonlocal finished
            finished = count
            news.set()

        async def tell() -> None:
            told = tuple(outcomes)
            outcomes.clear()
            if told:
                await self._conversation.send(Results(outcomes=told))
            await self._conversation.send(Progress(finished=finished))

        context = ProbeContext(run_id=self._run_id, key=self._key, share=message.share)
        probing = asyncio.create_task(run_probes(message.orders, context, on_outcomes, on_finished))
        probing.add_done_callback(lambda _: news.set())
        try:
            while not probing.done():
                await news.wait()
                news.clear()
                await tell()
            probing.result()
            await tell()
            await self._conversation.send(Done())
        except ConversationEnded:
            log.debug("nobody is left to tell the outcomes to")
        finally:
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)

    async def _stop_probing(self) -> None:
        if self._probing is not None:
            probing, self._probing = self._probing, None
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)

    def _seen(self, message: Ask) -> Seen:
        confirmation = self._listeners.confirm()
        return Seen(
            sightings=tuple(
                self._as_planned(sighting) for sighting in self._listeners.seen(message.probe_ids)
            ),
            confirmation=Confirmation(
                instance=confirmation.instance,
                held=tuple(self._as_planned(state) for state in confirmation.held),
                counts=tuple(self._as_planned(count) for count in confirmation.counts),
            ),
        )

    def _as_planned(self, one: Placed) -> Placed:
        """In the plan's words: the planned address instead of the translated one."""
        planned = self._planned.get(one.address)
        return one if planned is None else structs.replace(one, address=planned)


def _translation(greet: Greet, local_address: str | None) -> dict[str, str]:
    """Planned address -> the one to bind, for a node behind NAT: where the control connection
    came in (DESIGN 7). Empty for every other node.
    """
    if not greet.nat or local_address is None:
        return {}
    family = ipaddress.ip_address(local_address).version
    return {
        address: local_address
        for address in greet.addresses
        if not is_own_address(address) and ipaddress.ip_address(address).version == family
    }
