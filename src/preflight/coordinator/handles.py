"""One agent, as the coordinator speaks to it. Whatever goes wrong becomes its `state`.

No method raises for what an agent or the network does: a missing, slow or broken agent costs
its own flows, never the run.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from msgspec import structs

import preflight
from preflight.errors import WireError
from preflight.model.observation import AgentObservation, AgentState, Outcome, Reason
from preflight.model.plan import Close, Listen, PlannedNode, ProbeOrder, Share
from preflight.net.conversation import ConversationEnded, CoordinatorEnd
from preflight.net.dialling import DialFailed
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
    ToAgent,
    ToCoordinator,
    Welcome,
)

BEAT_INTERVAL = 2.0
"""Seconds between two signs of life, well below the agent's lease of 10 s."""
SILENCE_LIMIT = 7.0
"""Seconds without any message after which an agent counts as lost."""
STOOD_STILL = 4.0
"""Seconds between two of our own signs of life, beyond their interval, that say that this
process or its machine stood still: the agents are not to blame for what followed."""
SLOW_EXCHANGE = 1.0
"""Seconds: a greeting that took longer says nothing about the agent's clock."""

Dial = Callable[[PlannedNode, float], Awaitable[CoordinatorEnd]]
"""Opens a conversation with a node's agent within so many seconds, or raises `DialFailed`."""


class AgentHandle:
    """A conversation with one node's agent; `observation` is what is known of it by now."""

    def __init__(self, node: PlannedNode) -> None:
        self.node = node
        self.observation = AgentObservation(
            node=node.name,
            state="unreachable",
            reason=Reason.NOT_CALLED,
            detail="it was not reached before the run was stopped",
        )
        self._conversation: CoordinatorEnd | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._replies: asyncio.Queue[ToCoordinator | None] = asyncio.Queue()
        self._on_outcomes: Callable[[tuple[Outcome, ...]], None] = lambda _: None
        self._on_progress: Callable[[int], None] = lambda _: None
        self._heard = 0.0
        self._beaten = 0.0
        self._stood_still = 0.0
        self._releasing = False

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.name

    @property
    def ready(self) -> bool:
        """It can still be asked."""
        return self.observation.state == "ready"

    async def greet(self, dial: Dial, run_id: str, coordinator: str, patience: float) -> None:
        """Call the agent and lease it for this run."""
        try:
            async with asyncio.timeout(patience + SLOW_EXCHANGE):
                self._conversation = conversation = await dial(self.node, patience)
                sent = time.time()
                await conversation.send(
                    Greet(
                        wire_version=WIRE_VERSION,
                        version=preflight.__version__,
                        run_id=run_id,
                        coordinator=coordinator,
                        node=self.name,
                        addresses=self.node.addresses,
                        nat=self.node.nat,
                    )
                )
                reply = await conversation.receive()
                received = time.time()
        except DialFailed as failed:
            self._set_state(failed.state, failed.detail, failed.reason)
        except WireError as error:
            self._set_state("refused", f"it speaks another conversation: {error}", Reason.VERSION)
        except ConversationEnded as ended:
            self._set_state(
                "refused",
                f"it closed the connection without a greeting ({ended}): "
                "was it started with another key file?",
                Reason.KEY,
            )
        except TimeoutError:
            self._set_state("unreachable", f"it did not greet back within {patience:g} s")
        else:
            self._welcome(reply, sent, received)

    def _welcome(self, reply: ToCoordinator, sent: float, received: float) -> None:
        match reply:
            case Welcome(wire_version=version) if version == WIRE_VERSION:
                slow = received - sent > SLOW_EXCHANGE
                offset = (reply.time - (sent + received) / 2) * 1000
                self.observation = structs.replace(
                    self.observation,
                    state="ready",
                    reason=Reason.OTHER,
                    detail="",
                    version=reply.version,
                    instance=reply.instance,
                    clock_offset_ms=None if slow else round(offset, 1),
                    facts=reply.facts,
                )
                self._heard = self._beaten = asyncio.get_running_loop().time()
                self._tasks = [
                    asyncio.create_task(self._read()),
                    asyncio.create_task(self._beat()),
                ]
            case Refused():
                self._set_state("refused", reply.detail, reply.reason, reply.version)
            case _:
                said = "it did not greet back in our conversation"
                self._set_state("refused", said, Reason.VERSION)

    async def hold(self, listens: tuple[Listen, ...], patience: float, close: Close) -> None:
        """Have it hold its ports."""
        order = Hold(listens=listens, close=close)
        reply = await self._request(order, Held, patience, "hold its ports")
        if isinstance(reply, Held):
            self.observation = structs.replace(self.observation, listeners=reply.listeners)

    async def probe(
        self,
        orders: tuple[ProbeOrder, ...],
        share: Share,
        patience: float,
        on_outcomes: Callable[[tuple[Outcome, ...]], None],
        on_progress: Callable[[int], None],
    ) -> None:
        """Have it probe; outcomes are told as they come, also those before it is lost."""
        self._on_outcomes, self._on_progress = on_outcomes, on_progress
        await self._request(Start(orders=orders, share=share), Done, patience, "finish probing")

    async def ask(self, probe_ids: tuple[str, ...], patience: float) -> Seen | None:
        """Ask what its listeners saw, and for its word that they were up. None: it is lost."""
        reply = await self._request(Ask(probe_ids=probe_ids), Seen, patience, "tell what it saw")
        if not isinstance(reply, Seen):
            return None
        self.observation = structs.replace(self.observation, confirmation=reply.confirmation)
        return reply

    def settle(self) -> None:
        """Take no more outcomes: what came from now on, nobody would be asked about."""
        self._on_outcomes = lambda _: None

    def drop(self) -> None:
        """Break off at once. The agent lets go of everything when it sees the connection close."""
        for task in self._tasks:
            task.cancel()
        if self._conversation is not None:
            self._conversation.abort()

    async def release(self, patience: float) -> None:
        """Let it go, in order where it still answers, and close the conversation."""
        self._releasing = True
        if self.ready:
            await self._request(Release(), Released, patience, "let go of its ports", fatal=False)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._conversation is not None:
            await self._conversation.close()

    async def _request(
        self,
        message: ToAgent,
        expected: type[ToCoordinator],
        patience: float,
        what: str,
        *,
        fatal: bool = True,
    ) -> ToCoordinator | None:
        """Send, and wait for the reply of this type. Where there is none, the agent is lost."""
        if not self.ready or self._conversation is None:
            return None
        problem = f"it did not {what} within {patience:g} s"
        try:
            async with asyncio.timeout(patience):
                await self._conversation.send(message)
                while (reply := await self._replies.get()) is not None:
                    if isinstance(reply, expected):
                        return reply
                    if isinstance(reply, Refused):
                        self._set_state("refused", reply.detail, reply.reason)
                        return None
        except TimeoutError:
            pass
        except ConversationEnded as ended:
            problem = f"while it should {what}: {ended}"
        if fatal:
            self._lose(problem)
        return None

    async def _read(self) -> None:
        assert self._conversation is not None  # started by `_welcome` only
        loop = asyncio.get_running_loop()
        try:
            while True:
                message = await self._conversation.receive()
                self._heard = loop.time()
                match message:
                    case Beat():
                        pass
                    case Results():
                        self._on_outcomes(message.outcomes)
                    case Progress():
                        self._on_progress(message.finished)
                    case _:
                        self._replies.put_nowait(message)
        except ConversationEnded as ended:
            self._lose(f"the agent is gone: {ended}")
        except WireError as error:
            self._lose(str(error))
        self._replies.put_nowait(None)

    async def _beat(self) -> None:
        assert self._conversation is not None  # started by `_welcome` only
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(BEAT_INTERVAL)
            self._stood_still = max(self._stood_still, self._gap())
            self._beaten = loop.time()
            if loop.time() - self._heard > SILENCE_LIMIT:
                self._lose(f"nothing was heard of it for {SILENCE_LIMIT:g} s")
                self._replies.put_nowait(None)
                return
            # An agent that does not read must not keep us from noticing that it is silent.
            with contextlib.suppress(ConversationEnded, TimeoutError):
                async with asyncio.timeout(BEAT_INTERVAL):
                    await self._conversation.send(Beat())

    def _lose(self, detail: str) -> None:
        """It was ours, and is gone. Of several reasons the first one stands.

        While it is released, what happens takes nothing away from what it did.
        """
        if not self.ready or self._releasing:
            return
        still = max(self._stood_still, self._gap())
        if still > STOOD_STILL:
            detail = f"this coordinator stood still for {still:.0f} s, and the agent let go of it"
            self._set_state("lost", detail, Reason.COORDINATOR_PAUSED)
        else:
            self._set_state("lost", detail)

    def _gap(self) -> float:
        """For how long, beyond their interval, our own beats did not come."""
        return asyncio.get_running_loop().time() - self._beaten - BEAT_INTERVAL

    def _set_state(
        self, state: AgentState, detail: str, reason: Reason = Reason.OTHER, version: str = ""
    ) -> None:
        self.observation = structs.replace(
            self.observation,
            state=state,
            reason=reason,
            detail=detail,
            version=version or self.observation.version,
        )
