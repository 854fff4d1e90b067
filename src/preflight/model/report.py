"""The report, `preflight.report/1`: the public JSON. Fields are only ever added."""

from enum import StrEnum
from typing import Literal

from msgspec import Struct

from preflight.model.cluster import Expected, Protocol
from preflight.model.observation import AgentState, ListenerStatus, Phase, Reason
from preflight.model.plan import Family

REPORT_SCHEMA: Literal["preflight.report/1"] = "preflight.report/1"


class Verdict(StrEnum):
    """What is true of a flow."""

    OPEN = "open"
    DEGRADED = "degraded"
    BLOCKED = "blocked"
    INTERCEPTED = "intercepted"
    UNTESTED = "untested"


class Cause(StrEnum):
    """Why a flow is not plainly open."""

    NO_ANSWER = "no-answer"
    RESET = "reset"
    ICMP_PORT_UNREACHABLE = "icmp-port-unreachable"
    ICMP_HOST_UNREACHABLE = "icmp-host-unreachable"
    ICMP_NET_UNREACHABLE = "icmp-net-unreachable"
    ICMP_PROTOCOL_UNREACHABLE = "icmp-protocol-unreachable"
    ICMP_ADMIN_PROHIBITED = "icmp-admin-prohibited"
    ICMP_HOST_PROHIBITED = "icmp-host-prohibited"
    ICMP_NET_PROHIBITED = "icmp-net-prohibited"
    ICMP_TIME_EXCEEDED = "icmp-time-exceeded"
    ICMP_OTHER = "icmp-other"
    NO_ROUTE = "no-route"
    NO_NEIGHBOUR = "no-neighbour"
    SEND_DENIED = "send-denied"
    STALLED = "stalled"
    CLOSED = "closed"
    WRONG_NODE = "wrong-node"
    IMPOSTOR = "impostor"
    NO_BACKEND = "no-backend"
    PATH_MTU = "path-mtu"
    LOSS = "loss"
    AGENT_UNREACHABLE = "agent-unreachable"
    AGENT_REFUSED = "agent-refused"
    AGENT_LOST = "agent-lost"
    PORT_IN_USE = "port-in-use"
    BIND_DENIED = "bind-denied"
    SKIPPED = "skipped"


class Where(StrEnum):
    """Where a blocked flow breaks."""

    SOURCE_EGRESS = "source-egress"
    FORWARD_PATH = "forward-path"
    DESTINATION_HOST = "destination-host"
    RETURN_PATH = "return-path"
    SOURCE_INGRESS = "source-ingress"
    UNKNOWN = "unknown"


class IcmpEvidence(Struct, frozen=True):
    """The ICMP error behind a cause."""

    type: int
    code: int
    sender: str


class Evidence(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a verdict stands on. A field that has nothing to say is left out."""

    attempts: int = 0
    """Connections begun or datagrams sent."""
    answered: int = 0
    """Of those, how many got a valid answer."""
    errno: str | None = None
    """The symbolic name, as in "ECONNREFUSED"."""
    operation: str | None = None
    """The step that failed, or the last that worked."""
    icmp: IcmpEvidence | None = None
    icmp_seen: int | None = None
    """On how many ports the ICMP error was really seen: the kernel limits how many it tells."""
    seen_by_destination: bool | None = None
    """Whether the destination's listener saw an attempt."""
    retransmits: int | None = None
    """Connections that needed more than one SYN."""
    capture: bool | None = None
    """Whether packets were captured at both ends."""
    where_possible: tuple[Where, ...] = ()
    """Where it may break, as far as the evidence goes."""
    answered_by: str | None = None
    """The node that answered instead."""
    owner: str | None = None
    """The program that holds the port at the destination."""
    first_bytes: str | None = None
    """What somebody else answered, in hexadecimal (at most 16 bytes)."""


class FlowRecord(Struct, frozen=True, kw_only=True):
    """Ports of one (source, destination, protocol, family, rule) that share a result."""

    source: str
    """A node's name."""
    destination: str
    """A node's name, or a VIP's."""
    protocol: Protocol
    family: Family
    source_address: str
    destination_address: str
    ports: str
    """Ports and ranges of ports, ascending: `"30000-30079,30081-32767"`."""
    rule: str
    """Name of the rule that asks for it; `Report.rules` says why."""
    required: bool
    """False: blocked is a warning only."""
    expected: Expected
    """"blocked" where the rule says that this must not work."""
    verdict: Verdict
    ok: bool | None
    """Whether it is as it must be; null: not known."""
    cause: Cause | None = None
    """Null only for a plain `open`."""
    where: Where | None = None
    """Null unless `blocked`."""
    reported_by: str | None = None
    """The address that sent the ICMP error."""
    proof: Literal["agent", "connection"] | None = None
    """"agent": the right agent answered our challenge; "connection": another program holds
    the port, and the connection was made.
    """
    rtt_ms: float | None = None
    """Median, in milliseconds."""
    loss: float | None = None
    """Share of lost datagrams or connections, from 0 to 1."""
    observed_source: str | None = None
    """The source address that the destination saw."""
    backends: dict[str, int] | None = None
    """A VIP: how many answers each node behind it gave."""
    detail: str = ""
    """One sentence for people."""
    evidence: Evidence = Evidence()


class ListenerRecord(Struct, frozen=True, kw_only=True):
    """Ports of an agent that share a state."""

    protocol: Protocol
    ports: str
    state: ListenerStatus
    owner: str = ""


class AgentRecord(Struct, frozen=True, kw_only=True):
    """One node's agent."""

    node: str
    addresses: tuple[str, ...]
    roles: tuple[str, ...]
    state: AgentState
    detail: str
    """Why it is not ready."""
    version: str
    instance: str
    """Random identity of the agent's process: another one after a restart."""
    clock_offset_ms: float | None
    """The agent's clock minus the coordinator's, in milliseconds."""
    capture: bool
    """Whether the agent may capture packets (CAP_NET_RAW)."""
    listeners: tuple[ListenerRecord, ...]
    reason: Reason = Reason.OTHER
    """Why it is not ready, in one word; empty where there is none for it."""


Severity = Literal["error", "warning", "info"]


class Finding(Struct, frozen=True, kw_only=True):
    """One thing to know or to fix. `flows` are indexes into `Report.flows`."""

    code: str
    """Stable name of this kind of finding."""
    severity: Severity
    title: str
    detail: str = ""
    fix: str = ""
    """What to do, for people."""
    flows: tuple[int, ...] = ()
    """Indexes into `Report.flows`."""


class FlowCounts(Struct, frozen=True, kw_only=True):
    """How many (source, destination, protocol, family, port) have each verdict."""

    total: int = 0
    open: int = 0
    degraded: int = 0
    blocked: int = 0
    intercepted: int = 0
    untested: int = 0


class Summary(Struct, frozen=True, kw_only=True):
    """`ok` is true only if no flow is false or null."""

    ok: bool
    records: int
    """How many entries `Report.flows` has."""
    flows: FlowCounts
    narrowed_from: int | None = None
    """How many flows the whole cluster has, where the run was narrowed to fewer by --only, --from,
    --to or --port."""


class RuleRecord(Struct, frozen=True, kw_only=True):
    """A rule of the run, so that a report explains itself."""

    name: str
    why: str
    source: str
    """Where a reader can check the reason."""
    profile: str


class Report(Struct, frozen=True, kw_only=True):
    """A whole report."""

    schema: Literal["preflight.report/1"] = REPORT_SCHEMA
    cluster: str
    profiles: tuple[str, ...]
    started: str
    """ISO 8601, UTC, by the coordinator's clock."""
    finished: str
    """ISO 8601, UTC, by the coordinator's clock."""
    interrupted: bool
    """Ctrl-C or a kill ended the run early."""
    phases: tuple[Phase, ...]
    summary: Summary
    agents: tuple[AgentRecord, ...]
    rules: tuple[RuleRecord, ...]
    flows: tuple[FlowRecord, ...]
    domains: tuple[()] = ()
    findings: tuple[Finding, ...]
