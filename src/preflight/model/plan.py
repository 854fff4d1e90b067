"""What a run will do, whole, before it does anything: pure data made by `planning`."""

from typing import Literal

from msgspec import Struct

from preflight.model.cluster import Expected, Protocol
from preflight.ports import Ranges

Family = Literal[4, 6]
Close = Literal["fin", "reset"]
"""How a TCP connection of ours ends: in order, or with a reset, which leaves no TIME_WAIT."""

SECOND_LOOK_INTERVAL = 1.1
"""Seconds. Linux sends one ICMP error a second to each address (icmp_ratelimit); a bit more than
that, because one that comes a millisecond early gets none."""
SLOW_SECOND_LOOK_INTERVAL = 2.2
"""Seconds. A router's `prohibit` or `unreachable` route pays twice for each error, so that it
sends one in two seconds at most."""
HOLD_PATIENCE = 5.0
"""Seconds that agents may take to open their listeners."""
COLLECT_PATIENCE = 5.0
"""Seconds that agents may take to tell what their listeners saw."""
RELEASE_PATIENCE = 2.0
"""Seconds that agents may take to let go."""
GRACE = 1.5
"""Seconds beyond its own deadline that an agent may take to say that it is done."""
SLOW_PATIENCE = 3.3
"""Seconds. A router that looks for a host in vain says so after 3.1 s."""
BRIEF_INTERVAL = 0.2
"""Seconds between brief looks: five a second is slow for any limit that a sweep runs into."""
BRIEF_PATIENCE = 0.4
"""Seconds for an answer to a brief look. To miss one costs nothing: what was said stands."""


class Flow(Struct, frozen=True, kw_only=True):
    """One thing that must work (or, with `expected="blocked"`, must not), under one rule."""

    rule: str
    source: str
    destination: str
    """A node's name, or a VIP's."""
    protocol: Protocol
    family: Family
    source_address: str
    destination_address: str
    ports: Ranges
    required: bool = True
    expected: Expected = "open"


class Listen(Struct, frozen=True, kw_only=True):
    """Ports that one node's agent holds, on one address."""

    node: str
    protocol: Protocol
    address: str
    ports: Ranges
    only_if_local: bool = False
    """A VIP's address: held only where it is on this host, and no fault where it isn't."""


class Probe(Struct, frozen=True, kw_only=True):
    """What one source tries against one address: the union of all flows' ports, each once.

    There is exactly one probe for a (source, destination, destination address, protocol),
    so `id` joins flows, outcomes and sightings.
    """

    id: int
    source: str
    destination: str
    protocol: Protocol
    address: str
    ports: Ranges
    answerers: tuple[str, ...]
    """The nodes whose answer is the right one: the destination, or all backends of a VIP."""
    connections: int = 1
    """Proven connections wanted for each port: more than one only where backends are counted."""
    full_size_port: int | None = None
    """TCP: where a challenge of `limits.full_size` bytes follows a proven small one."""


class ProbeOrder(Struct, frozen=True, kw_only=True):
    """A probe as its source's agent gets it, once it is known who holds the ports."""

    probe: Probe
    connect_only: Ranges = ()
    """Ports that another program holds at the destination: connect, and send nothing."""
    second_look: bool = False
    """Try each port once, one every `SECOND_LOOK_INTERVAL`, after everything else is over."""
    lane: str = ""
    """Second look: orders of one lane take turns, and lanes run side by side. It is named after
    the sender whose ICMP errors are hoped for, because each limits its errors by itself."""
    slow: bool = False
    """Second look: the sender may have to look for the host first (`SLOW_PATIENCE`)."""
    brief: bool = False
    """Second look: no error is hoped for but an answer, at a pace (`BRIEF_INTERVAL`) that no
    limit on new connections minds."""


class Share(Struct, frozen=True, kw_only=True):
    """One agent's part of the run's bounds. The fields mean what they mean in `Limits`."""

    rate: float | None
    max_half_open: int
    patience: float
    deadline: float
    full_size: int
    close: Close = "reset"


class PlannedNode(Struct, frozen=True, kw_only=True):
    """A node as the coordinator and the report need it."""

    name: str
    roles: tuple[str, ...]
    addresses: tuple[str, ...]
    control_host: str
    control_port: int
    nat: bool = False
    embedded: bool = False


class PlannedVip(Struct, frozen=True, kw_only=True):
    """A VIP and the nodes behind it."""

    name: str
    address: str
    port: int
    backends: tuple[str, ...]


class PlannedRule(Struct, frozen=True, kw_only=True):
    """Why a flow is in the plan: shown in tables and findings."""

    name: str
    why: str
    source_text: str
    profile: str


class Limits(Struct, frozen=True, kw_only=True):
    """How hard and how long a run may push. Times are in seconds."""

    rate: float | None = 5_000.0
    """New connections and first datagrams a second in the whole run; None: no limit."""
    max_half_open: int = 20_000
    """TCP connections without an answer to their SYN within 120 s, in the whole run, its second
    look included. The kernel's own repeats of a SYN are the same connection."""
    patience: float = 4.0
    """How long one silent port is waited for. Above 3.1 s, when the kernel says that nobody
    answers ARP or neighbour discovery."""
    deadline: float = 10.0
    """Bound on the first pass; what is left undone then is `untested`."""
    second_look: float = 12.5
    """Bound on the second look at silent ports whose refusals were rate-limited."""
    greet: float = 5.0
    """How long an agent is waited for."""
    full_size: int = 8_192
    """Bytes of the full-size TCP challenge."""
    sample: int | None = None
    """How many ports are tried of each range that has more of them; None: all. The others are
    `untested`."""
    close: Close = "reset"
    """How TCP connections end. With "fin" the source closes first, and keeps TIME_WAIT."""


class Plan(Struct, frozen=True, kw_only=True):
    """A whole run. `run_id` is 32 hexadecimal digits, new for each run."""

    run_id: str
    cluster: str
    profiles: tuple[str, ...]
    nodes: tuple[PlannedNode, ...]
    vips: tuple[PlannedVip, ...]
    rules: tuple[PlannedRule, ...]
    flows: tuple[Flow, ...]
    listens: tuple[Listen, ...]
    probes: tuple[Probe, ...]
    limits: Limits
    notes: tuple[str, ...] = ()
    """What the plan leaves out and why: flows of a node to itself, roles without a node."""
    narrowed_from: int | None = None
    """How many flows the whole cluster has (source, destination, protocol, family, port), where
    the run was narrowed to fewer."""
