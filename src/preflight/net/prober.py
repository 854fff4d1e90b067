"""What the probers of all protocols share: the work they get, and what they say of a port."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from preflight.model.observation import Attempt, Failure, Icmp, Operation
from preflight.model.plan import BRIEF_PATIENCE, SLOW_PATIENCE, ProbeOrder, Share
from preflight.net.classify import Fault
from preflight.net.half_open import HalfOpen
from preflight.net.pacing import Pace
from preflight.wire.challenge import SMALL_SIZE, Answer, Challenge, NotOurs, read_answer

FIRST_BYTES = 16
"""How much of a foreign answer is kept."""

_UNSPECIFIED = ("0.0.0.0", "::")  # noqa: S104 - compared with, never bound

SINGLE_PATIENCE = 0.9
"""Seconds for the only try of a second look: below the kernel's first retransmission."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one prober does in one run of its own."""

    orders: tuple[ProbeOrder, ...]
    run_id: bytes
    key: bytes
    share: Share
    pace: Pace
    half_open: HalfOpen
    once: bool = False
    """One SYN or datagram a port, and nothing again."""


@dataclass(slots=True, kw_only=True)
class PortResult:
    """What became of one port, or of one connection where several are wanted.

    The fields mean what they mean in `model.observation.Outcome`.
    """

    port: int
    failure: Failure | None
    operation: Operation = Operation.NONE
    errno: str | None = None
    icmp: Icmp | None = None
    attempts: int = 0
    answered: int = 0
    retransmits: int = 0
    syns: int = 0
    waited: float | None = None
    rtt_ms: float | None = None
    answered_by: str | None = None
    answered_instance: str | None = None
    answered_port: int | None = None
    observed_source: str | None = None
    local_address: str | None = None
    size: int = 0
    first_bytes: str = ""
    unanswered: tuple[Attempt, ...] = ()
    finishes: bool = True
    """Nothing more is asked of this port (the full-size challenge apart)."""

    def set_fault(self, fault: Fault) -> None:
        """Take over why it failed."""
        self.failure, self.operation, self.errno, self.icmp = fault

    def set_answer(self, answer: Answer) -> None:
        """Take over what a valid answer says."""
        self.failure, self.operation = None, Operation.RECEIVE
        self.answered_by = answer.node
        self.answered_instance = answer.instance.hex()
        self.answered_port = answer.port if answer.port != self.port else None
        self.observed_source = answer.source_address


Report: TypeAlias = Callable[[int, PortResult], None]
"""Called in the prober's thread with the order's index in `Work.orders`."""


def patience_of(order: ProbeOrder, work: Work) -> float:
    """Seconds that a port of this order is waited for."""
    if not work.once:
        return work.share.patience
    if order.brief:
        return BRIEF_PATIENCE
    return SLOW_PATIENCE if order.slow else SINGLE_PATIENCE


class Prober(Protocol):
    """Does its work in the thread that calls `run`."""

    def run(self) -> None:
        """Return when every port was reported, or soon after `stop`."""

    def stop(self) -> None:
        """From any thread: give up, report nothing more, close every socket."""


def skipped(port: int, size: int = SMALL_SIZE) -> PortResult:
    """The result of a port for which the run's bounds left no room."""
    return PortResult(port=port, failure=Failure.SKIPPED, size=size)


def socket_address(address: str, port: int) -> tuple[int, tuple[Any, ...]]:
    """The socket family of a literal address, and the address as `connect` wants it."""
    # As bytes: text would go through the codec of international names, which is slow to load.
    found = socket.getaddrinfo(
        address.encode(),
        port,
        type=socket.SOCK_STREAM,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )
    return found[0][0], found[0][4]


def plain_address(address: str) -> str:
    """Without the interface of a link-local address: as the error queue writes it."""
    return address.partition("%")[0]


def own_address(sock: socket.socket) -> tuple[str, int]:
    """The address and port that the kernel chose; an empty address where it found no way."""
    address, port = sock.getsockname()[:2]
    chosen = address not in _UNSPECIFIED
    return (plain_address(address) if chosen else ""), port


def check_answer(data: bytes, challenge: Challenge, key: bytes) -> Answer | None:
    """The valid answer to this challenge; None: more bytes are needed.

    Raises `NotOurs` for anything else, a valid answer to another challenge included.
    """
    answer = read_answer(data, key)
    if answer is not None:
        check_belonging(answer, len(data), challenge)
    return answer


def check_belonging(answer: Answer, size: int, challenge: Challenge) -> None:
    """Raises `NotOurs` where an answer of so many bytes is not the one to this challenge."""
    if answer[:3] != challenge[:3]:
        raise NotOurs("an answer to another challenge")
    if size != challenge.size:
        raise NotOurs("an answer of another length than its challenge")
