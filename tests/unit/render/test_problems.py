from msgspec import structs

from preflight.model.observation import Reason
from preflight.model.report import Cause, Evidence, FlowRecord, Report, Verdict, Where
from preflight.render.marks import Mark, count_flows, mark_of
from preflight.render.problems import Problem, find_problems
from tests.unit.render.samples import (
    BLOCKED,
    IN_USE,
    REJECTED,
    RESET,
    SILENT,
    agent,
    asked,
    change,
    clean,
    flow,
    forty,
    mixed,
    report,
    sizes,
)


def headlines(whole: Report) -> list[str]:
    return [problem.headline for problem in find_problems(whole)]


def one_problem(*flows: FlowRecord) -> Problem:
    nodes = sizes(3, 2)
    agents = [agent(name, role) for name, role in nodes.items()]
    (problem,) = find_problems(report(list(flows), agents))
    return problem


def test_a_clean_run_has_none() -> None:
    assert find_problems(clean()) == []


def test_mixed_run_gives_one_line_a_cause() -> None:
    assert headlines(mixed()) == [
        "2 workers → db1 25080/tcp blocked: reset",
        "ops → 2 workers 30080/tcp blocked: icmp-admin-prohibited, by 10.0.9.1",
        "w1 → es1 9200/tcp intercepted: wrong-node",
        "2 workers, m1 and m2 → each other 8285/udp blocked: no-answer (not required)",
        "m1 and m2 → 2 workers 8472/udp degraded: loss of 8 to 12 %",
        "m3: agent not reached; 29 flows from and to it not tested",
        "m1 and m2 → w2 10250/tcp untested: port-in-use",
    ]


def test_notes_say_what_where_and_why() -> None:
    reset = find_problems(mixed())[0]
    assert reset.notes == (
        "a TCP reset came back although our listener was up",
        "for example: w1 was reset at once; db1 accepted nothing",
        (
            "where: not known; possible: on the way there (between the hosts)"
            " or on the destination's own host"
        ),
        "rule mongodb: Apinizer configuration database",
    )


def test_a_sentence_that_all_records_share_is_enough() -> None:
    flows = [change(flow(name, "db1", "tcp", "25080", "mongodb"), RESET) for name in ("w1", "w2")]
    notes = one_problem(*flows).notes
    assert notes[0] == "w1 was reset at once; db1 was listening and accepted nothing"
    assert not any("a TCP reset came back" in note for note in notes)


def test_every_flow_that_did_not_pass_is_counted_in_one_problem() -> None:
    for whole in (mixed(), forty()):
        bad = [one for one in whole.flows if mark_of(one) is not Mark.PASSED]
        counted = sum(problem.flows for problem in find_problems(whole))
        # A problem counts a port once, though two rules ask for it.
        assert counted == count_flows(bad)


def test_a_dead_node_is_one_line_with_what_is_not_required_too() -> None:
    dead, database, absent = find_problems(forty())
    assert dead.headline == (
        "every source → w7 10250/tcp, 8472/udp, 30080/tcp, 30000-32767/tcp and 8285/udp"
        " blocked: no-neighbour"
    )
    assert database.headline == "33 of 34 workers (not w7) → db1 25080/tcp blocked: no-answer"
    assert absent.headline == "w7: agent not reached; 78 flows from and to it not tested"


def test_a_source_that_reaches_nothing_is_one_line() -> None:
    nodes = sizes(3, 2)
    flows = [flow(*one) for one in asked(nodes)]
    flows = [
        change(one, {**SILENT, "ok": not one.required}) if one.source == "w1" else one
        for one in flows
    ]
    whole = report(flows, [agent(name, role) for name, role in nodes.items()])
    (line,) = headlines(whole)
    assert line.startswith("w1 → everything 6443/tcp, 8472/udp, 25080/tcp")


def test_agents_missing_in_the_same_way_share_a_line() -> None:
    nodes = sizes(3, 2)
    agents = [
        agent(name, role, *(("refused", "has another key") if role == "worker" else ()))
        for name, role in nodes.items()
    ]
    problem = find_problems(report([flow("m1", "m2", "tcp", "2379", "etcd")], agents))
    assert problem == [
        Problem(
            "untested",
            Mark.UNTESTED,
            "2 workers: agent refuses to take part",
            ("has another key",),
            0,
        )
    ]


def test_agents_that_one_run_holds_share_a_line() -> None:
    nodes = sizes(3, 2)
    agents = [
        structs.replace(
            agent(name, role, "refused", f"held since 08:00:0{place}"), reason=Reason.HELD
        )
        for place, (name, role) in enumerate(nodes.items())
    ]
    assert headlines(report([], agents)) == ["all 8 nodes: agent refuses to take part"]


def test_agents_that_differ_in_their_address_only_share_a_line() -> None:
    refused = "connection to 10.0.1.{}:10888 was refused: is `preflight serve` running there?"
    agents = [
        agent(f"m{number}", "control-plane", "unreachable", refused.format(number))
        for number in range(1, 100)
    ]
    (problem,) = find_problems(report([], agents))
    assert problem.headline == "all 99 nodes: agent not reached"
    assert problem.notes == (f"{refused.format(1)} (and 98 more like it)",)


def test_agents_of_other_versions_have_lines_of_their_own() -> None:
    agents = [
        agent(f"m{number}", "control-plane", "refused", f"this agent is preflight 0.{number}.0")
        for number in (1, 2)
    ]
    assert len(find_problems(report([], agents))) == 2


def test_what_an_interruption_left_untested_is_one_line() -> None:
    nodes = sizes(3, 2)
    agents = [agent(name, role) for name, role in nodes.items()]
    agents[0] = structs.replace(
        agent("m1", "control-plane", "unreachable"), reason=Reason.NOT_CALLED
    )
    left = {"verdict": Verdict.UNTESTED, "ok": None, "cause": Cause.SKIPPED}
    flows = [
        change(flow("m1", "m2", "tcp", "2379-2380", "etcd"), {**left, "detail": "interrupted: a"}),
        change(flow("w1", "m2", "tcp", "6443", "api"), {**left, "detail": "interrupted: b"}),
        change(flow("w2", "m2", "tcp", "6443", "api"), {**left, "detail": "out of descriptors"}),
    ]
    assert headlines(report(flows, agents, interrupted=True)) == [
        "3 flows not tested: the run was interrupted",
        "w2 → m2 6443/tcp untested: skipped",
    ]


def test_rules_with_one_port_and_one_cause_share_a_line() -> None:
    pairs = [("m1", "w1", "flannel-a"), ("m1", "w2", "flannel-b")]
    flows = [change(flow(a, b, "udp", "8472", rule), SILENT) for a, b, rule in pairs]
    problem = one_problem(*flows)
    assert problem.headline == "m1 → 2 workers 8472/udp blocked: no-answer"
    assert problem.notes[-1] == "rules flannel-a and flannel-b"


def test_the_family_is_named_where_the_other_one_works() -> None:
    four = flow("w1", "db1", "tcp", "25080", "mongodb")
    six = change(four, {**REJECTED, "family": 6})
    assert "25080/tcp over IPv6 blocked" in one_problem(four, six).headline
    both = one_problem(change(four, REJECTED), six)
    assert "25080/tcp blocked" in both.headline
    assert both.flows == 2


def test_who_reported_it() -> None:
    open_flow = flow("w1", "db1", "tcp", "25080", "mongodb")
    itself = change(open_flow, {**REJECTED, "reported_by": open_flow.destination_address})
    assert one_problem(itself).headline.endswith(", by the destination itself")
    own = {"cause": Cause.SEND_DENIED, "reported_by": open_flow.source_address}
    assert one_problem(change(open_flow, {**BLOCKED, **own})).headline.endswith(
        "blocked: send-denied, by the source itself"
    )


def test_routers_that_find_no_vip_share_a_line() -> None:
    flows = [
        change(
            flow(source, "api", "tcp", "6443", "kube-apiserver-vip"),
            {**BLOCKED, "cause": Cause.ICMP_HOST_UNREACHABLE, "reported_by": router},
        )
        for source, router in (("w1", "10.0.2.1"), ("m1", "10.0.1.1"))
    ]
    headline = one_problem(*flows).headline
    assert headline.endswith("→ api 6443/tcp blocked: icmp-host-unreachable, by the routers")


def test_where_anything_is_possible_nothing_is_listed() -> None:
    anywhere = tuple(one for one in Where if one is not Where.UNKNOWN)
    fields = {**SILENT, "evidence": Evidence(where_possible=anywhere)}
    problem = one_problem(change(flow("w1", "db1", "tcp", "25080", "mongodb"), fields))
    assert "where: not known (at either host, or anywhere between them)" in problem.notes


def test_exposure_rules() -> None:
    closed = change(flow("ops", "db1", "tcp", "25080", "closed"), {"expected": "blocked"})
    opened = one_problem(change(closed, {"ok": False}))
    assert (opened.section, opened.mark) == ("error", Mark.EXPOSED)
    assert opened.headline == "ops → db1 25080/tcp open, and must be blocked"
    stolen = change(closed, {"ok": False, "verdict": Verdict.INTERCEPTED, "cause": Cause.IMPOSTOR})
    assert one_problem(stolen).headline.endswith("intercepted: impostor, and must be blocked")
    unproven = change(closed, {**BLOCKED, "ok": None, "cause": Cause.NO_ROUTE})
    problem = one_problem(unproven)
    assert problem.section == "untested"
    assert problem.headline.endswith(
        "blocked: no-route, which does not prove that a firewall blocks it"
    )
    passed = change(closed, {**RESET, "ok": True})
    assert mark_of(passed) is Mark.PASSED


def test_degraded_is_an_error_where_the_run_was_strict() -> None:
    lossy = {"verdict": Verdict.DEGRADED, "cause": Cause.LOSS, "loss": 0.025, "ok": False}
    problem = one_problem(change(flow("m1", "w1", "udp", "8472", "flannel-vxlan"), lossy))
    assert (problem.section, problem.mark) == ("error", Mark.DEGRADED)
    assert problem.headline.endswith("degraded: loss of 2.5 %")


def test_the_owner_of_a_port_is_named_once() -> None:
    problem = find_problems(mixed())[-1]
    assert "held by kubelet (pid 812)" in problem.notes
    said = "kubelet (pid 812) holds the port there"
    again = one_problem(
        change(flow("m1", "w2", "tcp", "10250", "kubelet"), {**IN_USE, "detail": said})
    )
    assert said in again.notes
    assert "held by kubelet (pid 812)" not in again.notes


def test_an_address_that_nobody_has_is_not_the_sources_fault() -> None:
    fields = {**BLOCKED, "cause": Cause.NO_NEIGHBOUR, "where": Where.SOURCE_EGRESS}
    notes = one_problem(change(flow("w1", "api", "tcp", "6443", "vip"), fields)).notes
    (place,) = [note for note in notes if note.startswith("where")]
    assert place.endswith("network segment, where nobody answers for the address")
