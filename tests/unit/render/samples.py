"""Reports made by hand: what a run of eight, or of forty, machines may come back with."""

from typing import Any

from preflight.model.cluster import Protocol
from preflight.model.observation import AgentState, Phase
from preflight.model.report import (
    AgentRecord,
    Cause,
    Evidence,
    Finding,
    FlowCounts,
    FlowRecord,
    IcmpEvidence,
    Report,
    RuleRecord,
    Summary,
    Verdict,
    Where,
)
from preflight.ports import count_ports, parse_ports

RULES = {
    "kube-apiserver": "kubelets and everything else in the cluster talk to it",
    "etcd": "API servers ask it on 2379, its members replicate on 2380",
    "kubelet": "logs, exec and metrics are fetched by the control plane",
    "kube-apiserver-vip": "every cluster node joins through it",
    "flannel-vxlan": "all traffic between pods on different nodes",
    "flannel-udp": "Flannel's udp backend; the usual vxlan backend does not use it",
    "mongodb": "Apinizer configuration database",
    "elasticsearch": "Analytics server where traffic logs are written",
    "apinizer-portal": "NodePort of the API Portal",
    "nodeports": "Kubernetes gives services that are reached from outside a port of this range",
}
Change = dict[str, Any]
"""Fields of a `FlowRecord` that differ from a plain `open`."""


def sizes(control_planes: int, workers: int) -> dict[str, str]:
    """Nodes and their role, in the shape of the requirements document."""
    nodes = {f"m{number}": "control-plane" for number in range(1, control_planes + 1)}
    nodes |= {f"w{number}": "worker" for number in range(1, workers + 1)}
    return nodes | {"db1": "mongodb", "es1": "elasticsearch", "ops": "client"}


def asked(nodes: dict[str, str]) -> list[tuple[str, str, Protocol, str, str]]:
    """Every (source, destination, protocol, ports, rule) of these nodes."""
    by_role: dict[str, list[str]] = {}
    for node, role in nodes.items():
        by_role.setdefault(role, []).append(node)
    controllers, workers = by_role["control-plane"], by_role["worker"]
    cluster = controllers + workers
    wanted: list[tuple[list[str], list[str], Protocol, str, str]] = [
        (workers, controllers, "tcp", "6443", "kube-apiserver"),
        (controllers, controllers, "tcp", "2379-2380", "etcd"),
        (controllers, workers, "tcp", "10250", "kubelet"),
        (cluster, ["api"], "tcp", "6443", "kube-apiserver-vip"),
        (cluster, cluster, "udp", "8472", "flannel-vxlan"),
        (cluster, cluster, "udp", "8285", "flannel-udp"),
        (workers, ["db1"], "tcp", "25080", "mongodb"),
        (workers, ["es1"], "tcp", "9200", "elasticsearch"),
        (["ops"], workers, "tcp", "30080", "apinizer-portal"),
        (["ops"], workers, "tcp", "30000-32767", "nodeports"),
    ]
    return [
        (source, destination, protocol, ports, rule)
        for sources, destinations, protocol, ports, rule in wanted
        for source in sources
        for destination in destinations
        if source != destination
    ]


def flow(source: str, destination: str, protocol: Protocol, ports: str, rule: str) -> FlowRecord:
    """A record that is plainly open."""
    return FlowRecord(
        source=source,
        destination=destination,
        protocol=protocol,
        family=4,
        source_address=f"address-of-{source}",
        destination_address=f"address-of-{destination}",
        ports=ports,
        rule=rule,
        required=rule != "flannel-udp",
        expected="open",
        verdict=Verdict.OPEN,
        ok=True,
        proof="agent",
    )


def change(record: FlowRecord, fields: Change) -> FlowRecord:
    """The same record with other fields; `proof` goes with the plain `open`."""
    old = {name: getattr(record, name) for name in record.__struct_fields__}
    return FlowRecord(**{**old, "proof": None, **fields})


def agent(node: str, role: str, state: AgentState = "ready", detail: str = "") -> AgentRecord:
    """A node's agent."""
    return AgentRecord(
        node=node,
        addresses=(f"address-of-{node}",),
        roles=(role,),
        state=state,
        detail=detail,
        version="0.1.0" if state == "ready" else "",
        instance="aa" if state == "ready" else "",
        clock_offset_ms=0.4 if state == "ready" else None,
        capture=False,
        listeners=(),
    )


def report(
    flows: list[FlowRecord],
    agents: list[AgentRecord],
    findings: tuple[Finding, ...] = (),
    *,
    interrupted: bool = False,
) -> Report:
    """A whole report around these records; the summary is counted from them."""
    counts = dict.fromkeys(Verdict, 0)
    for one in flows:
        counts[one.verdict] += count_ports(parse_ports(one.ports))
    return Report(
        cluster="prod",
        profiles=("apinizer",),
        started="2025-01-01T10:00:00.000Z",
        finished="2025-01-01T10:00:02.000Z",
        interrupted=interrupted,
        phases=(
            Phase(name="greet", elapsed_ms=112.0),
            Phase(name="listen", elapsed_ms=240.5),
            Phase(name="probe", elapsed_ms=812.0),
            Phase(name="collect", elapsed_ms=40.0),
            Phase(name="release", elapsed_ms=9.0),
        ),
        summary=Summary(
            ok=all(one.ok is True for one in flows),
            records=len(flows),
            flows=FlowCounts(
                total=sum(counts.values()),
                **{verdict.value: number for verdict, number in counts.items()},
            ),
        ),
        agents=tuple(agents),
        rules=tuple(
            RuleRecord(name=name, why=why, source="requirements, section 2", profile="apinizer")
            for name, why in RULES.items()
        ),
        flows=tuple(flows),
        findings=findings,
    )


def clean(control_planes: int = 3, workers: int = 2) -> Report:
    """All is well."""
    nodes = sizes(control_planes, workers)
    return report(
        [flow(*one) for one in asked(nodes)], [agent(name, role) for name, role in nodes.items()]
    )


BLOCKED: Change = {"verdict": Verdict.BLOCKED, "ok": False}
RESET: Change = {
    **BLOCKED,
    "cause": Cause.RESET,
    "where": Where.UNKNOWN,
    "detail": "w1 was reset at once; db1 was listening and accepted nothing",
    "evidence": Evidence(
        attempts=1,
        errno="ECONNREFUSED",
        operation="connect",
        where_possible=(Where.FORWARD_PATH, Where.DESTINATION_HOST),
    ),
}
REJECTED: Change = {
    **BLOCKED,
    "cause": Cause.ICMP_ADMIN_PROHIBITED,
    "where": Where.FORWARD_PATH,
    "reported_by": "10.0.9.1",
    "evidence": Evidence(attempts=3, icmp=IcmpEvidence(3, 13, "10.0.9.1"), icmp_seen=6),
}
SILENT: Change = {
    **BLOCKED,
    "cause": Cause.NO_ANSWER,
    "where": Where.UNKNOWN,
    "evidence": Evidence(
        where_possible=(Where.SOURCE_EGRESS, Where.FORWARD_PATH, Where.DESTINATION_HOST)
    ),
}
WRONG: Change = {
    "verdict": Verdict.INTERCEPTED,
    "ok": False,
    "cause": Cause.WRONG_NODE,
    "detail": "w2 answered in the place of es1",
}
LOSSY: Change = {"verdict": Verdict.DEGRADED, "cause": Cause.LOSS, "loss": 0.08, "proof": "agent"}
PATH_MTU: Change = {
    "verdict": Verdict.DEGRADED,
    "cause": Cause.PATH_MTU,
    "proof": "agent",
}
UNREACHED: Change = {"verdict": Verdict.UNTESTED, "ok": None, "cause": Cause.AGENT_UNREACHABLE}
IN_USE: Change = {
    "verdict": Verdict.UNTESTED,
    "ok": None,
    "cause": Cause.PORT_IN_USE,
    "evidence": Evidence(owner="kubelet (pid 812)"),
}


def _mixed_changes(source: str, destination: str, rule: str) -> Change | None:
    if "m3" in (source, destination):
        return UNREACHED
    match (source, destination, rule):
        case (_, "db1", _):
            return {**RESET, "detail": f"{source} was reset at once; db1 accepted nothing"}
        case (_, "es1", _):
            return WRONG if source == "w1" else None
        case ("m1" | "m2", "w1" | "w2", "flannel-vxlan"):
            return {**LOSSY, "loss": 0.08 if source == "m1" else 0.12}
        case (_, _, "flannel-udp"):
            return {**SILENT, "ok": True}
        case (_, "w2", "kubelet"):
            return IN_USE
    return None


def mixed() -> Report:
    """Eight nodes: a bit of everything, and holes in the NodePort range."""
    nodes = sizes(3, 2)
    flows: list[FlowRecord] = []
    for one in asked(nodes):
        record = flow(*one)
        if record.rule == "nodeports":
            flows.append(change(record, {"ports": "30000-30079,30081-32767", "proof": "agent"}))
            flows.append(change(record, {**REJECTED, "ports": "30080"}))
        elif record.rule == "apinizer-portal":
            flows.append(change(record, REJECTED))
        else:
            changes = _mixed_changes(record.source, record.destination, record.rule)
            flows.append(change(record, changes) if changes else record)
    agents = [agent(name, role) for name, role in nodes.items()]
    agents[2] = agent(
        "m3", "control-plane", "unreachable", "nothing listens on 10.0.1.13:10888 (reset)"
    )
    resets = tuple(place for place, one in enumerate(flows) if one.cause is Cause.RESET)
    rejects = tuple(place for place, one in enumerate(flows) if one.reported_by)
    findings = (
        Finding(
            code="clock-offset",
            severity="warning",
            title="the clock of w1 is 3 years behind",
            detail="certificates made by kubeadm would not be valid there yet",
            fix="Set the clock of w1, and let it follow a time server.",
        ),
        Finding(
            code="agent-unreachable",
            severity="error",
            title="the agent of m3 was not reached",
            fix="Start it there: preflight serve --key-file prod.agent.key",
        ),
        Finding(
            code="blocked",
            severity="error",
            title="2 workers -> db1 25080/tcp blocked: reset",
            fix="Ask who runs the firewall between workers and db1, or db1 itself, to allow it.",
            flows=resets,
        ),
        Finding(
            code="blocked",
            severity="error",
            title="ops -> 2 workers 30080/tcp blocked: icmp-admin-prohibited",
            fix="Ask who runs the firewall 10.0.9.1 to allow 30080/tcp from ops to the workers.",
            flows=rejects,
        ),
        Finding(code="note", severity="info", title="etcd of a node to itself is left out"),
    )
    return report(flows, agents, findings)


def forty() -> Report:
    """Forty nodes: one dead address, and workers that don't reach the database."""
    nodes = sizes(3, 34)
    dead: Change = {**BLOCKED, "cause": Cause.NO_NEIGHBOUR, "where": Where.SOURCE_EGRESS}
    flows: list[FlowRecord] = []
    for one in asked(nodes):
        record = flow(*one)
        if record.destination == "w7":
            record = change(record, {**dead, "ok": not record.required})
        elif record.source == "w7":
            record = change(record, UNREACHED)
        elif record.destination == "db1":
            record = change(record, SILENT)
        flows.append(record)
    agents = [
        agent(name, role, *(("unreachable", "no answer in 5 s") if name == "w7" else ()))
        for name, role in nodes.items()
    ]
    return report(flows, agents)
