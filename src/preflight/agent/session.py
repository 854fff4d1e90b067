"""One lease, from the agent's Welcome to the release of everything that it held and did."""

import asyncio
import ipaddress
import logging
import time
from typing import TypeVar

from msgspec import structs

import preflight
from preflight.agent.facts import is_own_address
from preflight.agent.lease import LEASE_SECONDS, Lease, Pulse
from preflight.agent.listeners import Listeners
from preflight.errors import LimitError, WireError
from preflight.model.observation import (
    Confirmation,
    Facts,
    ListenerCount,
    ListenerState,
    Outcome,
    Reason,
    Sightings,
)
from preflight.net.conversation import AgentEnd, ConversationEnded
from preflight.probes import ProbeContext, run_probes
from preflight.wire.messages import (
    OUTCOMES_AT_ONCE,
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
    ToAgent,
    Welcome,
)

Placed = TypeVar("Placed", ListenerState, ListenerCount, Sightings)

log = logging.getLogger("preflight.agent")


class Session:
    """What an agent does for one run."""

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
        self._pulse = Pulse()
        self._probing: asyncio.Task[None] | None = None
        self._untold: list[Outcome] = []
        self._finished = 0

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
        released = False
        while not released:
            try:
                # Answering is in it: a coordinator that was stopped does not read either.
                async with asyncio.timeout(LEASE_SECONDS):
                    message = await self._conversation.receive()
                    self._lease.renew()
                    released = await self._obey(message)
            except TimeoutError:
                raise ConversationEnded(
                    f"nothing was heard of the coordinator for {LEASE_SECONDS:.0f} s"
                ) from None

    async def _obey(self, message: ToAgent) -> bool:
        """Do what the coordinator says. True: it has released us."""
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
                await self._tell()
                await self._conversation.send(self._seen(message))
            case Release():
                await self.close()
                await self._conversation.send(Released())
                return True
            case Greet():
                raise WireError("greeted twice")
        return False

    async def close(self) -> None:
        """Stop probing and let go of every port. May be called again."""
        try:
            await self._stop_probing()
        finally:
            self._pulse.stop()
            await self._listeners.release()

    async def _hold(self, message: Hold) -> None:
        to_bind = [
            structs.replace(listen, address=self._translation.get(listen.address, listen.address))
            for listen in message.listens
        ]
        try:
            # A node that others need not reach needs no descriptors for listeners either.
            states = await self._listeners.hold(to_bind, message.close) if to_bind else ()
        except LimitError as error:
            await self._conversation.send(
                Refused(
                    wire_version=WIRE_VERSION,
                    version=preflight.__version__,
                    detail=str(error),
                    reason=Reason.DESCRIPTORS,
                )
            )
            raise
        self._pulse.start()
        await self._conversation.send(
            Held(listeners=tuple(self._as_planned(state) for state in states))
        )

    async def _probe(self, message: Start) -> None:
        """Probe, and tell the results as they come. The conversation's end is seen by `run`."""
        news = asyncio.Event()

        def on_outcomes(found: tuple[Outcome, ...]) -> None:
            self._untold.extend(found)
            news.set()

        def on_finished(count: int) -> None:
            self._finished = count
            news.set()

        context = ProbeContext(run_id=self._run_id, key=self._key, share=message.share)
        probing = asyncio.create_task(run_probes(message.orders, context, on_outcomes, on_finished))
        probing.add_done_callback(lambda _: news.set())
        try:
            while not probing.done():
                await news.wait()
                news.clear()
                await self._tell()
            probing.result()
            await self._tell()
            await self._conversation.send(Done())
        except ConversationEnded:
            log.debug("nobody is left to tell the outcomes to")
        finally:
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)

    async def _tell(self) -> None:
        """What was found and not told yet."""
        while self._untold:
            told = tuple(self._untold[:OUTCOMES_AT_ONCE])
            del self._untold[:OUTCOMES_AT_ONCE]
            await self._conversation.send(Results(outcomes=told))
        await self._conversation.send(Progress(finished=self._finished))

    async def _stop_probing(self) -> None:
        if self._probing is not None:
            probing, self._probing = self._probing, None
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)

    def _seen(self, message: Ask) -> Seen:
        confirmation = self._listeners.confirm()
        # Listeners that nobody attended to for a while were up, but answered nobody.
        held = () if self._pulse.paused else confirmation.held
        return Seen(
            sightings=tuple(
                self._as_planned(seen) for seen in self._listeners.seen(message.probe_ids)
            ),
            confirmation=Confirmation(
                instance=confirmation.instance,
                held=tuple(self._as_planned(state) for state in held),
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
