"""The control conversation between coordinator and agent: bounded, length-prefixed MessagePack.

    coordinator                      agent
    Greet                 ->         Welcome | Refused
    Hold (ports)          ->         Held
    Start (probes)        ->         Progress*, Results*, Done
    Ask (probe ids)       ->         Seen
    Release               ->         Released
    Beat (any time)       ->         Beat

One decoder a direction, strict and bounded: an unknown tag, a wrong type or too long a
message is one `WireError`, and the conversation is over.
"""

import struct
from typing import TypeAlias

import msgspec
from msgspec import Struct

from preflight.errors import WireError
from preflight.model.observation import (
    Confirmation,
    Facts,
    ListenerState,
    Outcome,
    Reason,
    Sightings,
)
from preflight.model.plan import Close, Listen, ProbeOrder, Share

WIRE_VERSION = 1
MAX_MESSAGE = 32 * 1024 * 1024
"""Bytes: the plan of a 500-node cluster is below 4 MiB; results and questions are cut to fit."""
OUTCOMES_AT_ONCE = 64
"""In one `Results`: each may list thousands of attempts, of about 40 bytes."""
IDS_AT_ONCE = 400_000
"""In one `Ask`: 34 bytes each, and about 40 in the answer."""
PREFIX = struct.Struct("!I")


class Greet(Struct, frozen=True, kw_only=True, tag=True):
    """The coordinator introduces the run, and says which node this agent is in it."""

    wire_version: int
    version: str
    run_id: str
    coordinator: str
    """For the one who is turned away: "root@jump (pid 4711)"."""
    node: str
    addresses: tuple[str, ...]
    nat: bool = False


class Welcome(Struct, frozen=True, kw_only=True, tag=True):
    """The agent is this run's, under a lease that `Beat` renews."""

    wire_version: int
    version: str
    instance: str
    time: float
    """The agent's clock, seconds since the epoch, when it wrote this."""
    facts: Facts
    bind_addresses: tuple[str, ...]
    """The addresses it will bind: its own of the plan, or the control connection's behind NAT."""


class Refused(Struct, frozen=True, kw_only=True, tag=True):
    """The agent can't take part; `detail` is a whole sentence."""

    wire_version: int
    version: str
    detail: str
    reason: Reason = Reason.OTHER


class Hold(Struct, frozen=True, kw_only=True, tag=True):
    """Bind these ports, and answer challenges of this run on them."""

    listens: tuple[Listen, ...]
    close: Close = "reset"
    """How connections end that the listener itself closes."""


class Held(Struct, frozen=True, kw_only=True, tag=True):
    """What became of each of them."""

    listeners: tuple[ListenerState, ...]


class Start(Struct, frozen=True, kw_only=True, tag=True):
    """Probe. Outcomes come as they are known; `Done` ends them."""

    orders: tuple[ProbeOrder, ...]
    share: Share


class Progress(Struct, frozen=True, kw_only=True, tag=True):
    """How many (probe, port) are finished."""

    finished: int


class Results(Struct, frozen=True, kw_only=True, tag=True):
    """Outcomes, some of this `Start`'s."""

    outcomes: tuple[Outcome, ...]


class Done(Struct, frozen=True, kw_only=True, tag=True):
    """Every order of the last `Start` has its outcomes."""


class Ask(Struct, frozen=True, kw_only=True, tag=True):
    """What did your listeners see of these attempts (probe ids in hexadecimal)?"""

    probe_ids: tuple[str, ...]


class Seen(Struct, frozen=True, kw_only=True, tag=True):
    """The sightings of these, those without a valid challenge, and the agent's confirmation."""

    sightings: tuple[Sightings, ...]
    confirmation: Confirmation


class Release(Struct, frozen=True, kw_only=True, tag=True):
    """Let go of everything; the run is over."""


class Released(Struct, frozen=True, kw_only=True, tag=True):
    """Nothing is held any more."""


class Beat(Struct, frozen=True, kw_only=True, tag=True):
    """I am alive. The agent answers each with one of its own."""


ToAgent: TypeAlias = Greet | Hold | Start | Ask | Release | Beat
ToCoordinator: TypeAlias = (
    Welcome | Refused | Held | Progress | Results | Done | Seen | Released | Beat
)

_encoder = msgspec.msgpack.Encoder()
_agent_decoder: msgspec.msgpack.Decoder[ToAgent] = msgspec.msgpack.Decoder(ToAgent)
_coordinator_decoder: msgspec.msgpack.Decoder[ToCoordinator] = msgspec.msgpack.Decoder(
    ToCoordinator
)


def encode_message(message: ToAgent | ToCoordinator) -> bytes:
    """The message with its length before it."""
    body = _encoder.encode(message)
    if len(body) > MAX_MESSAGE:
        raise WireError(f"a message of {len(body)} bytes is over the limit of {MAX_MESSAGE}")
    return PREFIX.pack(len(body)) + body


def check_length(prefix: bytes) -> int:
    """The length that a prefix states. Raises `WireError` where it is over the limit."""
    (length,) = PREFIX.unpack(prefix)
    if length > MAX_MESSAGE:
        raise WireError(f"a message of {length} bytes is announced; the limit is {MAX_MESSAGE}")
    return int(length)


def decode_for_agent(body: bytes) -> ToAgent:
    """Read what a coordinator sent. Raises `WireError`."""
    try:
        return _agent_decoder.decode(body)
    except msgspec.DecodeError as error:
        raise WireError(f"not a message of ours: {error}") from error


def decode_for_coordinator(body: bytes) -> ToCoordinator:
    """Read what an agent sent. Raises `WireError`."""
    try:
        return _coordinator_decoder.decode(body)
    except msgspec.DecodeError as error:
        raise WireError(f"not a message of ours: {error}") from error
