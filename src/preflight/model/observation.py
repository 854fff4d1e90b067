"""What was seen, at both ends, without judgement. `diagnosis` turns this into verdicts.

`Failure` and `Operation` are closed lists: their values stand in run files that people keep,
so they are only ever added to.
"""

from enum import StrEnum
from typing import Literal

from msgspec import Struct

from preflight.model.cluster import Protocol
from preflight.ports import Ranges


class Failure(StrEnum):
    """Why a probe has no valid answer, as the source saw it."""

    NO_ANSWER = "no-answer"
    """Silence until the patience ended (or the kernel's own ETIMEDOUT)."""
    RESET = "reset"
    """A TCP RST to the SYN: ECONNREFUSED with an empty error queue."""
    ICMP = "icmp"
    """An ICMP error of somebody else's; `Outcome.icmp` has it."""
    NO_ROUTE = "no-route"
    """The source's own kernel: EHOSTUNREACH, ENETUNREACH or EINVAL with an empty error queue."""
    NO_NEIGHBOUR = "no-neighbour"
    """ICMP host-unreachable from the source's own address: nobody answers ARP or ND."""
    SEND_DENIED = "send-denied"
    """EPERM or EACCES from the source's own kernel, or ICMP from the source's own address
    (its own firewall rejects)."""
    SILENT_AFTER_CONNECT = "silent-after-connect"
    """Handshake completed, then nothing until the patience ended."""
    CLOSED_AFTER_CONNECT = "closed-after-connect"
    """Handshake completed, then EOF, or a RST (`errno` says which)."""
    FOREIGN_ANSWER = "foreign-answer"
    """Bytes came that are no answer of ours: another program, another key, another run."""
    CONNECTED_ONLY = "connected-only"
    """A port held by another program: the connection was made, nothing was sent."""
    SKIPPED = "skipped"
    """Never tried: the run's bounds or its deadline left no room."""
    LOCAL_LIMIT = "local-limit"
    """The source ran out of descriptors, ports or memory: `errno` says of what."""


REFUSED = frozenset({Failure.ICMP, Failure.SEND_DENIED})
"""With an `Outcome.icmp`: a firewall or a router said no, on the way or on the source itself. The
kernel bounds how many of its errors it sends, its own to itself included (icmp_msgs_per_sec)."""


class Operation(StrEnum):
    """Which step failed, or was the last that worked."""

    NONE = "none"
    CONNECT = "connect"
    SEND = "send"
    RECEIVE = "receive"


class Icmp(Struct, frozen=True):
    """An ICMP or ICMPv6 error as the kernel's error queue gave it."""

    family: Literal[4, 6]
    type: int
    code: int
    sender: str


class Attempt(Struct, frozen=True, kw_only=True):
    """One try without a valid answer, kept so that the destination can be asked about it."""

    probe_id: str
    """The challenge's 128 random bits, in hexadecimal."""
    port: int
    local_address: str = ""
    local_port: int = 0
    connected: bool = False
    lost_syns: int = 0
    """TCP: SYNs without effect before this connection was made."""
    unheard: bool = False
    """TCP: connected, but whoever is there acknowledged nothing and repeated its SYN-ACK: it does
    not get what follows the SYN (TCP_INFO)."""


class Attempts(Struct, frozen=True, kw_only=True):
    """Attempts in columns (`preflight.columns`): they may be as many as there are ports.

    The fields mean what they mean in `Attempt`; the n-th entry of each column is of one attempt.
    """

    probe_ids: tuple[str, ...]
    ports: tuple[int, ...]
    local_ports: tuple[int, ...]
    local_address: str = ""
    connected: bool = False
    lost_syns: int = 0
    unheard: bool = False


class Outcome(Struct, frozen=True, kw_only=True):
    """The ports of one probe that shared a result. The counts are totals over these ports."""

    probe: int
    """`Probe.id`"""
    ports: Ranges
    failure: Failure | None
    """None: proven by a valid answer."""
    operation: Operation = Operation.NONE
    errno: str | None = None
    """The symbolic name, as in "ECONNREFUSED"."""
    icmp: Icmp | None = None
    icmp_seen: int = 0
    """On how many of these ports an ICMP error was really seen."""
    attempts: int = 0
    """Connections begun or datagrams sent (the kernel's own retransmissions not counted)."""
    answered: int = 0
    """Of those, how many got a valid answer."""
    retransmits: int = 0
    """TCP: connections whose handshake needed a retransmission or a second attempt (TCP_INFO)."""
    syns: int = 0
    """TCP, where nothing came back: SYNs sent, the kernel's own retransmissions included."""
    waited: float | None = None
    """Seconds for which each of these ports was silent, at least, until it was given up."""
    rtt_ms: float | None = None
    """Median time from first SYN to established (TCP), or from datagram to answer (UDP)."""
    answered_by: str | None = None
    """The node that answered, whoever it was."""
    answered_instance: str | None = None
    answered_port: int | None = None
    """The listener's own port where it differs from the port that was asked (translated)."""
    observed_source: str | None = None
    """The source address that the answering listener saw."""
    local_address: str | None = None
    """The source address that the source's kernel chose."""
    size: int = 0
    """Bytes of the challenge; `Limits.full_size` marks the full-size one."""
    first_bytes: str = ""
    """FOREIGN_ANSWER: the first bytes that came, in hexadecimal (at most 16)."""
    unanswered: tuple[Attempts, ...] = ()
    """Attempts without a valid answer that the destination may have seen."""
    second_look: bool = False
    """Made in the second look: one port a second, after the first pass was over."""


class Sighting(Struct, frozen=True, kw_only=True):
    """One thing that a listener saw of an attempt."""

    node: str
    protocol: Protocol
    address: str
    port: int
    """The listener's own address and port."""
    source_address: str
    source_port: int
    probe_id: str | None
    """None: a connection that was accepted and never sent a valid challenge."""
    answered: bool
    """The listener sent its answer."""


class Sightings(Struct, frozen=True, kw_only=True):
    """What one listener's address saw from one source's, in columns as in `Attempts`.

    The fields mean what they mean in `Sighting`.
    """

    node: str
    protocol: Protocol
    address: str
    source_address: str
    answered: bool
    ports: tuple[int, ...]
    source_ports: tuple[int, ...]
    probe_ids: tuple[str, ...] = ()
    """Empty: none of these connections ever sent a valid challenge."""


ListenerStatus = Literal["listening", "occupied", "denied"]


class ListenerState(Struct, frozen=True, kw_only=True):
    """What became of ports that an agent was asked to hold."""

    protocol: Protocol
    address: str
    ports: Ranges
    state: ListenerStatus
    owner: str = ""
    """Who holds an occupied port: "kube-apiserver (pid 812)", "VXLAN device flannel.1"."""
    owner_listens: bool = False
    """TCP: the holder is in LISTEN, so that a connection can succeed."""
    detail: str = ""


class ListenerCount(Struct, frozen=True, kw_only=True):
    """What a listener counted while it was held, for ports with equal counts' state."""

    protocol: Protocol
    address: str
    ports: Ranges
    accepted: int
    """TCP: connections accepted; UDP: datagrams that arrived, valid or not."""
    answered: int
    dropped: int
    """Closed or ignored by our own limits: not null means that silence proves nothing."""


class Confirmation(Struct, frozen=True, kw_only=True):
    """An agent's word, after the probing, that its listeners were up all the time."""

    instance: str
    held: tuple[ListenerState, ...]
    """The listeners that were held without a break since the listen phase."""
    counts: tuple[ListenerCount, ...] = ()


class Backlog(Struct, frozen=True, kw_only=True):
    """What the kernel allows to wait for one TCP listener."""

    somaxconn: int
    """Connections that are made, and not accepted yet; and handshakes that are not finished."""
    max_syn_backlog: int
    """Without SYN cookies, three quarters of this bound the unfinished handshakes as well."""
    syn_cookies: bool


class Facts(Struct, frozen=True, kw_only=True):
    """What an agent knows of its host."""

    hostname: str = ""
    kernel: str = ""
    python: str = ""
    addresses: tuple[str, ...] = ()
    mtus: dict[str, int] = {}
    local_port_range: tuple[int, int] | None = None
    capture: bool = False
    """CAP_NET_RAW is held."""
    descriptors: int = 0
    """The hard limit of open files."""
    backlog: Backlog | None = None


AgentState = Literal["ready", "unreachable", "refused", "lost"]


class Reason(StrEnum):
    """Why an agent takes no part, where that is known well enough to say what helps."""

    OTHER = ""
    NOT_CALLED = "not-called"
    """The run was stopped before it was reached."""
    NO_HOST = "no-host"
    """EHOSTUNREACH from the control connection: nobody has the address, or a firewall rejects."""
    HELD = "held"
    """It is leased to another run."""
    NOT_ITS_ADDRESS = "not-its-address"
    """The plan's address is not on its machine."""
    VERSION = "version"
    """It speaks another version of the conversation."""
    KEY = "key"
    """It has another cluster's key."""
    NOT_AN_AGENT = "not-an-agent"
    """Another program is at its control port."""
    STALLED = "stalled"
    """Its control port takes connections, and the TLS handshake came to no end."""
    COORDINATOR_PAUSED = "coordinator-paused"
    """The coordinator itself stood still, so that agents let go of it."""
    DESCRIPTORS = "descriptors"
    """It may not open as many files as it has ports to hold."""


class AgentObservation(Struct, frozen=True, kw_only=True):
    """How the conversation with one node's agent went."""

    node: str
    state: AgentState
    reason: Reason = Reason.OTHER
    detail: str = ""
    version: str = ""
    instance: str = ""
    clock_offset_ms: float | None = None
    facts: Facts = Facts()
    listeners: tuple[ListenerState, ...] = ()
    confirmation: Confirmation | None = None


class Phase(Struct, frozen=True, kw_only=True):
    """One phase of the run and how long it took."""

    name: str
    elapsed_ms: float


class Observations(Struct, frozen=True, kw_only=True):
    """Everything that one run saw. Order carries no meaning."""

    agents: tuple[AgentObservation, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    sightings: tuple[Sightings, ...] = ()
    phases: tuple[Phase, ...] = ()
    started: str = ""
    """ISO 8601, UTC, by the coordinator's clock."""
    finished: str = ""
    interrupted: bool = False
