"""Every finding that there is: its code, its severity, and how it is worded.

The texts are templates; `findings` and `surroundings` fill them. A code is public, and stays.
"""

from msgspec import Struct

from preflight.model.observation import Reason
from preflight.model.report import Cause, Finding, Severity, Where


class Kind(Struct, frozen=True, kw_only=True):
    """One kind of finding. The texts are `str.format` templates."""

    code: str
    severity: Severity
    title: str
    detail: str = "{detail}"
    fix: str = ""

    def fill(self, *, flows: tuple[int, ...] = (), **words: object) -> Finding:
        """A finding of this kind. `flows` are indexes into the report's records."""
        return Finding(
            code=self.code,
            severity=self.severity,
            title=self.title.format_map(words),
            detail=self.detail.format_map(words),
            fix=self.fix.format_map(words),
            flows=flows,
        )


# About flows. `{flow}` is "2 workers -> db1 25080/tcp".
EXPOSED = Kind(
    code="exposed",
    severity="error",
    title="{flow} must be blocked, and is {verdict}",
    fix="Close it: nothing but what the rules name should get from {sources} to {destinations}.",
)
INTERCEPTED = Kind(
    code="intercepted", severity="error", title="{flow} intercepted: {cause}", fix="{fix}"
)
NO_BACKEND = Kind(
    code="no-backend", severity="error", title="{flow} blocked: no backend behind it", fix="{fix}"
)
BLOCKED = Kind(code="blocked", severity="error", title="{flow} blocked: {cause}", fix="{fix}")
BLOCKED_OPTIONAL = Kind(
    code="blocked-optional",
    severity="warning",
    title="{flow} {verdict}, but not required: {cause}",
    fix="Only if you use it: {fix}",
)
DEGRADED_LOSS = Kind(
    code="degraded-loss",
    severity="warning",
    title="{flow} works, but loses packets",
    fix="Ask the network team for errors, drops and policing between {sources} and "
    "{destinations}; ping with a thousand packets shows the same.",
)
PATH_MTU = Kind(
    code="path-mtu",
    severity="warning",
    title="{flow} passes small data only",
    fix="Compare the MTU of the interfaces at both ends and on the way (VPN, tunnel, jumbo "
    "frames), and let ICMP 'fragmentation needed' (IPv4 3/4, IPv6 type 2) through.",
)
TOO_LOSSY = Kind(
    code="too-lossy",
    severity="warning",
    title="{flow} could not be tested: too many packets are lost",
    fix="Cure the packet loss between {sources} and {destinations} first, then run again.",
)
TOO_FAST = Kind(
    code="too-fast",
    severity="warning",
    title="{flow} could not be tested at this pace",
    fix="Run again, slower (--rate 100, or less): a firewall between {sources} and {destinations} "
    "seems to limit new connections. If it fails all the same, the way was gone for a moment.",
)
NO_NEIGHBOUR = Kind(
    code="no-neighbour",
    severity="error",
    title="{flow} could not be tested: nobody has the address",
    fix="No host answers at {destinations}: is the address right, is the machine on?",
)
NOT_TESTED = Kind(
    code="not-tested",
    severity="warning",
    title="{flow} could not be tested",
    fix="Run again, with a longer --deadline or narrowed to these flows (--from, --to, --port).",
)
VIP_UNHELD = Kind(
    code="vip-unheld",
    severity="error",
    title="{flow} blocked: nobody has the address",
    fix="Is {destinations} on any machine yet (keepalived, kube-vip, a balancer)? Nobody answers "
    "for it. If it is, {otherwise}{mark}",
)
VIP_UNSTEADY = Kind(
    code="vip-unsteady",
    severity="warning",
    title="{flow} is open, but some connections failed",
    fix="Look at the health checks of {destinations}: a backend behind it does not answer.",
)
NAT_OBSERVED = Kind(
    code="nat-observed",
    severity="warning",
    title="{source} appears to {destinations} as {observed}",
    detail="It left as {left}: its address is translated on the way. Firewall rules that name "
    "{address} do not see it.",
    fix="Take the translation away between these nodes, or name {observed} in the rules.",
)
VIP_HIDES_SOURCE = Kind(
    code="vip-hides-source",
    severity="info",
    title="{destinations} hides {sources} from its backends",
    detail="They see {observed}. Many load balancers do this; firewall rules on the backends "
    "must allow that address.",
)
OTHER_SOURCE = Kind(
    code="other-source-address",
    severity="warning",
    title="{source} reaches {destinations} from {local}, not from {address}",
    detail="The source's own routes choose {local}. What was tested is that address.",
    fix="Correct the node's address in the cluster file, or the routes on {source} "
    "(`ip route get` with the destination's address shows the choice).",
)

# About nodes.
AGENT_UNREACHABLE = Kind(
    code="agent-unreachable",
    severity="error",
    title="no agent on {nodes}",
    fix="{fix}",
)
AGENT_REFUSED = Kind(
    code="agent-refused",
    severity="error",
    title="{agents} refused to take part",
    fix="{fix}",
)
AGENT_LOST = Kind(
    code="agent-lost",
    severity="error",
    title="{agents} lost during the run",
    fix="{fix}",
)
AGENT_UNSTEADY = Kind(
    code="agent-unsteady",
    severity="error",
    title="{agents} did not listen all the time",
    fix="{fix}",
)
PORT_OCCUPIED = Kind(
    code="port-occupied",
    severity="warning",
    title="{place} {ports}/{protocol} held by {owner}",
    detail="Another program has the port, so {node}'s agent could not answer on it.{detail}",
    fix="Before an installation: free the port on {node}, and run again. Where its holder is the "
    "service itself, a connection is all the proof that there is.",
)
BIND_DENIED = Kind(
    code="bind-denied",
    severity="error",
    title="{node}'s agent may not listen on {ports}/{protocol}",
    fix="Ports below 1024 want root or CAP_NET_BIND_SERVICE; an address that is not on the "
    "machine wants `nat = true` or the right address in the cluster file.",
)
CLOCK_OFFSET = Kind(
    code="clock-offset",
    severity="warning",
    title="{node}'s clock is {offset} {direction} the coordinator's",
    detail="Certificates and etcd want clocks that agree.",
    fix="On {node}: start time synchronisation (chronyc tracking, timedatectl status).",
)
NAT_NODE = Kind(
    code="nat-node",
    severity="info",
    title="{node} is behind NAT",
    detail="A pass covers the translated path: the address of the plan is not on the machine.",
)
LOCAL_PORT_RANGE = Kind(
    code="local-port-range",
    severity="warning",
    title="{node} may take ports {ports} for its own connections",
    detail="net.ipv4.ip_local_port_range is {first} {last}: an outgoing connection with such a "
    "local port keeps a service from binding it.",
    fix="On {node}: sysctl -w net.ipv4.ip_local_reserved_ports={reserve} (and in "
    "/etc/sysctl.d/, to keep it; add what is reserved already).",
)

SMALL_BACKLOG = Kind(
    code="small-backlog",
    severity="warning",
    title="{nodes} may drop connections where {sources} sources begin at once",
    detail="{settings} there: {room} connections to one port may wait to be accepted, and up to "
    "{sources} sources connect to one at once. Dropped ones are tried again, and what stayed "
    "silent on such a port is untested, not blocked. Services have the same limit.",
    fix="On {nodes}: {commands} (and in /etc/sysctl.d/, to keep it).",
)

# About the run.
INTERRUPTED = Kind(
    code="interrupted",
    severity="warning",
    title="the run was interrupted",
    detail="What had not been tried by then is untested, and so is what failed and whose "
    "destination could not be asked about it any more.",
    fix="Run again.",
)
PLAN_NOTE = Kind(code="plan-note", severity="info", title="{note}", detail="")

_SERVE = "On {nodes}: `preflight serve --key-file cluster.agent.key`"
_FIXES_BY_REASON = {
    Reason.NO_HOST: "Is the address right, and is the machine on: {hosts}? If so, a firewall "
    "rejects {port}/tcp from the coordinator.",
    Reason.STALLED: "Small packets reach {port}/tcp of {hosts}. Is a device on the way that "
    "inspects TLS, or loses packets? Is the agent on {nodes} running freely?",
    Reason.COORDINATOR_PAUSED: "Run again, on a machine that is not suspended meanwhile.",
    Reason.HELD: "Wait until that run has ended, and run again.",
    Reason.NOT_ITS_ADDRESS: "Correct nodes.{node}.address in the cluster file; or set nat = true "
    "there, if the address is translated on the way.",
    Reason.VERSION: "Install the same version of preflight on {nodes} and on the coordinator, "
    "and start it again there.",
    Reason.KEY: "Start {them} with this cluster's key (the .agent.key file beside the "
    "coordinator's key file). " + _SERVE + ".",
    Reason.NOT_AN_AGENT: "Another program has {port}/tcp of {host}: stop it, or give "
    "`preflight serve` another port (--control, and nodes.{node}.control in the cluster file).",
    Reason.DESCRIPTORS: "On {nodes}: raise the hard limit of open files (ulimit -Hn, or "
    "LimitNOFILE= of a systemd unit), and start `preflight serve` again.",
}
_FIXES_EMBEDDED = {
    Reason.NOT_ITS_ADDRESS: "Correct nodes.{node}.address in the cluster file, or run this "
    "command on {node}: the agent of an embedded node is part of the command.",
    Reason.DESCRIPTORS: "Raise the hard limit of open files (ulimit -Hn) where this command runs.",
}
_FIX_UNSTEADY = (
    "Run again. If it is told again: was {nodes} suspended meanwhile, or is it overloaded?"
)
_FIXES_BY_KIND = {
    AGENT_UNREACHABLE.code: _SERVE + ", and open {port}/tcp to {hosts} from the coordinator.",
    AGENT_REFUSED.code: "Cure what {they_say}. " + _SERVE + ", with the key file and the version "
    "of this coordinator.",
    AGENT_LOST.code: "Look at what ended {them}, and start {them} again. " + _SERVE + ".",
}
_COORDINATORS_KEY = (
    "No agent has this coordinator's key, so it is probably the coordinator's that is the wrong "
    "one: look at key_file in the cluster file, or --key-file. If it is right: "
)
"""Before the step for `Reason.KEY`, where it is all agents that have another key."""


def fix_for_absence(kind: Kind, reason: Reason, *, embedded: bool, dead: bool, every: bool) -> str:
    """The template of what to do about missing agents.

    `dead`: other nodes say that there is no host. An `embedded` agent is part of the command
    that the user started, so nothing is to be started on its node. `every`: they are several,
    and all that there are but an embedded one.
    """
    if kind is AGENT_UNSTEADY:
        return _FIX_UNSTEADY
    if dead:
        return NO_NEIGHBOUR.fix.replace("{destinations}", "{places}")
    if embedded:
        return _FIXES_EMBEDDED.get(reason, "Run again: {node}'s agent is part of this command.")
    fix = _FIXES_BY_REASON.get(reason, _FIXES_BY_KIND[kind.code])
    return _COORDINATORS_KEY + fix if every and reason is Reason.KEY else fix


_ASK = "Ask the network team to allow {sources} to {destinations} on {ports}/{protocol}"
_OWN_FIREWALL = (
    "allow {ports}/{protocol} from {sources} in the machine's own firewall "
    "(`nft list ruleset`, `firewall-cmd --list-all`)"
)
_FIXES_BY_CAUSE = {
    Cause.NO_ROUTE: "Give {sources} a route to {destinations} (`ip route get` with the address).",
    Cause.NO_NEIGHBOUR: "Is {destinations} switched on, in the same network segment as {sources}, "
    "and its address right? Nobody answers for it.",
    Cause.SEND_DENIED: "Allow {ports}/{protocol} to {destinations} in the output rules of "
    "{sources} (`nft list ruleset`, `ip route`, `ip rule`).",
    Cause.WRONG_NODE: "Find who leads {ports}/{protocol} of {destinations} to {answered_by}: "
    "a DNAT rule, a balancer's pool, or the same address on two machines.",
    Cause.IMPOSTOR: "Find what answers {ports}/{protocol} in place of {destinations}: a proxy, a "
    "redirect, a balancer, or a second machine with the address.",
    Cause.NO_BACKEND: "Look at the backend pool of {destinations} and at its health checks: "
    "it accepts connections and has nowhere to send them.",
    Cause.STALLED: "Look for a device that inspects traffic between {sources} and {destinations}: "
    "the handshake passes, the data does not.",
    Cause.CLOSED: "Look for a device that inspects traffic between {sources} and {destinations} "
    "and cuts what it does not know: the handshake passes, then the connection is cut.",
    Cause.ICMP_HOST_UNREACHABLE: "{reporter} finds nobody at the address of {destinations}, or "
    "rejects so: check the route there, then its rules for {ports}/{protocol}.",
    Cause.ICMP_NET_UNREACHABLE: "{reporter} has no route to {destinations}, or rejects so: check "
    "its routes, then its rules for {ports}/{protocol}.",
    Cause.ICMP_TIME_EXCEEDED: "Packets to {destinations} run in a circle near {reporter}: "
    "check the routes there.",
}
_FIXES_BY_WHERE = {
    Where.SOURCE_EGRESS: "On {sources}: allow {ports}/{protocol} to {destinations} in the "
    "machine's own output rules (`nft list ruleset`).",
    Where.FORWARD_PATH: _ASK + ": {reporter} on the way refuses it.",
    Where.DESTINATION_HOST: "On {destinations}: " + _OWN_FIREWALL + ".",
    Where.RETURN_PATH: _ASK + ", and the answers back: they get lost on the way.",
    Where.SOURCE_INGRESS: "On {sources}: let the answers in (`nft list ruleset`, established "
    "connections).",
    Where.UNKNOWN: _ASK + "; and on {destinations}: " + _OWN_FIREWALL + ".",
}


def fix_for(cause: Cause | None, where: Where | None) -> str:
    """The template of the sentence that says who has to do what.

    At the destination's own host, where ICMP comes from its firewall, `where` tells more than
    the kind of error.
    """
    if cause in _FIXES_BY_CAUSE and where is not Where.DESTINATION_HOST:
        return _FIXES_BY_CAUSE[cause]
    return _FIXES_BY_WHERE[where or Where.UNKNOWN]
