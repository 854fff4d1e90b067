"""The report, `preflight.report/1`: the public JSON. Fields are only ever added."""

from enum import StrEnum
from typing import Literal

from msgspec import Struct

from preflight.model.cluster import Expected, Protocol
from preflight.model.observation import AgentState, ListenerStatus, Phase
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
    answered: int = 0
    errno: str | None = None
    operation: str | None = None
    icmp: IcmpEvidence | None = None
    icmp_seen: int | None = None
    seen_by_destination: bool | None = None
    retransmits: int | None = None
    capture: bool | None = None
    where_possible: tuple[Where, ...] = ()
    answered_by: str | None = None
    owner: str | None = None
    first_bytes: str | None = None


class FlowRecord(Struct, frozen=True, kw_only=True):
    """Ports of one (source, destination, protocol, family, rule) that share a result."""

    source: str
    destination: str
    protocol: Protocol
    family: Family
    source_address: str
    destination_address: str
    ports: str
    rule: str
    required: bool
    expected: Expected
    verdict: Verdict
    ok: bool | None
    cause: Cause | None = None
    where: Where | None = None
    reported_by: str | None = None
    proof: Literal["agent", "connection"] | None = None
    rtt_ms: float | None = None
    loss: float | None = None
    observed_source: str | None = None
    backends: dict[str, int] | None = None
    detail: str = ""
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
    version: str
    instance: str
    clock_offset_ms: float | None
    capture: bool
    listeners: tuple[ListenerRecord, ...]


Severity = Literal["error", "warning", "info"]


class Finding(Struct, frozen=True, kw_only=True):
    """One thing to know or to fix. `flows` are indexes into `Report.flows`."""

    code: str
    severity: Severity
    title: str
    detail: str = ""
    fix: str = ""
    flows: tuple[int, ...] = ()


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
    flows: FlowCounts


class RuleRecord(Struct, frozen=True, kw_only=True):
    """A rule of the run, so that a report explains itself."""

    name: str
    why: str
    source: str
    profile: str


class Report(Struct, frozen=True, kw_only=True):
    """A whole report."""

    schema: Literal["preflight.report/1"] = REPORT_SCHEMA
    cluster: str
    profiles: tuple[str, ...]
    started: str
    finished: str
    interrupted: bool
    phases: tuple[Phase, ...]
    summary: Summary
    agents: tuple[AgentRecord, ...]
    rules: tuple[RuleRecord, ...]
    flows: tuple[FlowRecord, ...]
    domains: tuple[()] = ()
    findings: tuple[Finding, ...]
