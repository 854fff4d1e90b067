import io

import msgspec
import pytest
from rich.console import Console

from preflight.model.report import Finding, Report
from preflight.render.table import render_table
from tests.unit.render.samples import (
    LOSSY,
    PATH_MTU,
    REJECTED,
    UNREACHED,
    Change,
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


def drawn(whole: Report, width: int = 80, encoding: str = "utf-8", *, colour: bool = False) -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    render_table(
        whole,
        Console(
            file=stream,
            width=width,
            color_system="standard" if colour else None,
            force_terminal=colour,
            _environ={},
        ),
    )
    return raw.getvalue().decode(encoding)


def words(text: str) -> str:
    return " ".join(text.split())


def rows(text: str) -> dict[str, list[str]]:
    """The matrix: the first word of each row, and its cells."""
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("from"):
            found = {"from": line.split()}
            for row in lines:
                if not row.strip():
                    return found
                name, *cells = row.split()
                found[name] = cells
    raise AssertionError("no matrix")


def test_a_clean_run_is_short_and_says_so() -> None:
    text = drawn(clean())
    assert text.startswith("prod (apinizer): OK: every required flow works\n")
    assert "5,611 open, 0 degraded, 0 blocked, 0 intercepted, 0 untested, of 5,611" in text
    assert "8 of 8 ready" in text
    assert "1.2 s: greeting the agents 0.1 s" in words(text)
    assert len(text.splitlines()) < 20
    assert "What" not in text


def test_matrix_of_nodes() -> None:
    matrix = rows(drawn(mixed()))
    assert matrix["w1"] == ["~1", "~1", "?3", "-", "~1", "✗1", "!1", "✓"]
    assert matrix["ops"] == ["·", "·", "·", "✗1", "✗1", "·", "·", "·"]
    assert "db1" not in matrix


def test_a_number_counts_the_sign_that_it_stands_beside() -> None:
    nodes = sizes(3, 2)
    flows = [
        change(flow("ops", "w1", "tcp", "30000-30009", "nodeports"), REJECTED),
        change(flow("ops", "w1", "tcp", "30010-30999", "nodeports"), UNREACHED),
        change(flow("ops", "w2", "tcp", "30000", "nodeports"), REJECTED),
        change(flow("ops", "w2", "udp", "8285", "flannel-udp"), {**REJECTED, "ok": True}),
    ]
    text = drawn(report(flows, [agent(name, role) for name, role in nodes.items()]))
    assert rows(text)["ops"] == ["✗10", "✗1"]


def test_matrix_of_roles_counts_pairs_of_nodes() -> None:
    text = drawn(forty())
    assert "worker (34) ?3 ✗33 ✗33 ?1 ?1" in words(text)
    assert "a number: that many pairs of nodes with this sign" in words(text)


def test_a_wide_matrix_uses_numbers_then_leaves_counts_out_then_gives_up() -> None:
    text = drawn(mixed(), width=36)
    assert "1 m1" in text
    assert "columns: 6 db1, 7 es1, 8 api (VIP)" in text
    assert "✗1" in text
    without_counts = drawn(mixed(), width=28)
    assert "✗1" not in without_counts
    assert "5 w2" in without_counts
    assert "does not fit this terminal" in words(drawn(mixed(), width=20))


@pytest.mark.parametrize("width", [40, 80, 200])
def test_nothing_that_matters_is_cut(width: int) -> None:
    text = words(drawn(mixed(), width))
    for sentence in (
        "NOT OK: 5 flows do not work as required, 31 not tested",
        "7 of 8 ready (missing: m3)",
        "2 workers → db1 25080/tcp blocked: reset",
        "ops → 2 workers 30080/tcp blocked: icmp-admin-prohibited, by 10.0.9.1",
        "m3: agent not reached; 29 flows from and to it not tested",
        "nothing listens on 10.0.1.13:10888 (reset)",
        "rule mongodb: Apinizer configuration database",
    ):
        assert sentence in text
    assert all(len(line.rstrip()) <= width for line in drawn(mixed(), width).splitlines())


def test_sections_stand_in_order() -> None:
    text = drawn(mixed())
    titles = ["What is wrong", "Warnings", "Not tested", "Also noticed", "What to do next"]
    places = [text.index(title) for title in titles]
    assert places == sorted(places)


def test_fixes_are_numbered_by_severity_and_given_once() -> None:
    whole = mixed()
    (again,) = (one for one in whole.findings if one.code == "agent-unreachable")
    twice = msgspec.structs.replace(
        whole, findings=(*whole.findings, msgspec.structs.replace(again, title="and of m9"))
    )
    text = drawn(twice, 200)
    assert text.count("Start it there:") == 1
    assert text.index("3. the agent of m3 was not reached") < text.index("and of m9")
    assert text.index("and of m9") < text.index("Start it there:") < text.index("4. the clock")
    assert "4. the clock of w1 is 3 years behind" in text
    assert "certificates made by kubeadm would not be valid there yet" in text


def test_steps_stand_in_the_order_of_the_problems_and_in_their_words() -> None:
    whole = mixed()
    text = drawn(msgspec.structs.replace(whole, findings=whole.findings[::-1]), 200)
    for headline in (
        "2 workers → db1 25080/tcp blocked: reset",
        "ops → 2 workers 30080/tcp blocked: icmp-admin-prohibited",
    ):
        assert text.count(headline) == 2
    assert text.index("1. 2 workers → db1") < text.index("2. ops → 2 workers 30080/tcp")
    assert "->" not in text


def test_to_run_an_interrupted_run_again_is_the_first_step() -> None:
    again = Finding(code="interrupted", severity="warning", title="cut", fix="Run again.")
    whole = mixed()
    findings = (*whole.findings, again)
    text = drawn(msgspec.structs.replace(whole, interrupted=True, findings=findings), 200)
    assert "1. cut Run again. 2. 2 workers" in words(text)


def test_flows_that_are_open_by_connection_only_are_counted() -> None:
    nodes = sizes(3, 2)
    flows = [flow(*one) for one in asked(nodes)]
    flows[0] = change(flows[0], {"proof": "connection"})
    agents = [agent(name, role) for name, role in nodes.items()]
    text = drawn(report(flows, agents))
    assert "OK: every required flow works; 1 by connection only\n" in text


@pytest.mark.parametrize(
    ("changes", "clauses"),
    [
        ([PATH_MTU], "; full-size packets do not pass on 1 path"),
        ([LOSSY, LOSSY], "; 2 flows lose packets"),
        ([{**REJECTED, "ok": True}], "; 1 that is not required does not"),
        (
            [PATH_MTU, LOSSY, {**REJECTED, "ok": True}, {**REJECTED, "ok": True}],
            (
                "; full-size packets do not pass on 1 path; 1 flow loses packets"
                "; 2 that are not required do not"
            ),
        ),
    ],
)
def test_the_first_line_says_what_an_ok_leaves_out(changes: list[Change], clauses: str) -> None:
    nodes = sizes(3, 2)
    flows = [flow(*one) for one in asked(nodes)]
    for place, fields in enumerate(changes):
        flows[place] = change(flows[place], fields)
    agents = [agent(name, role) for name, role in nodes.items()]
    text = drawn(report(flows, agents), 200)
    assert f"OK: every required flow works{clauses}\n" in text


def test_a_narrowed_run_is_not_called_ok_for_the_whole_cluster() -> None:
    nodes = sizes(3, 2)
    flows = [flow(f"w{number}", "db1", "tcp", "25080", "mongodb") for number in (1, 2)]
    whole = report(flows, [agent(name, role) for name, role in nodes.items()])
    structs = msgspec.structs
    summary = structs.replace(whole.summary, narrowed_from=5621)
    text = drawn(structs.replace(whole, summary=summary), 200)
    assert "OK: the 2 flows that were checked work (narrowed from 5,621)\n" in text
    assert "of 2 (narrowed from 5,621)" in text


def test_a_step_has_its_reason_above_it() -> None:
    clock = Finding(
        code="clock-offset", severity="warning", title="late", detail="why", fix="Set it."
    )
    whole = msgspec.structs.replace(clean(), findings=(clock,))
    assert "Also noticed - late why What to do next 1. late Set it." in words(drawn(whole))


def test_no_line_ends_in_blanks() -> None:
    assert all(line == line.rstrip() for line in drawn(mixed(), 120).splitlines())


def test_what_explains_is_not_dim() -> None:
    text = drawn(mixed(), 200, colour=True)
    line = next(one for one in text.splitlines() if "Apinizer configuration database" in one)
    assert "\x1b[2m" not in line


def test_a_finding_that_a_line_has_told_is_not_told_again() -> None:
    told = Finding(code="blocked", severity="error", title="told above", detail="too", flows=(0,))
    noticed = Finding(code="nat", severity="info", title="translated on the way", flows=(1,))
    nodes = sizes(3, 2)
    flows = [
        change(flow("w1", "db1", "tcp", "25080", "mongodb"), REJECTED),
        flow("w2", "db1", "tcp", "25080", "mongodb"),
    ]
    agents = [agent(name, role) for name, role in nodes.items()]
    text = drawn(report(flows, agents, (told, noticed)))
    assert "told above" not in text
    assert "translated on the way" in text


def test_ascii_terminals_and_no_colour() -> None:
    text = drawn(mixed(), encoding="ascii")
    assert "2 workers -> db1 25080/tcp blocked: reset" in text
    assert rows(text)["w1"] == ["~1", "~1", "?3", "-", "~1", "X1", "!1", "+"]
    assert "\x1b" not in drawn(mixed())
    assert "\x1b[" in drawn(mixed(), colour=True)


def test_agents_cannot_write_to_the_terminal() -> None:
    evil = "bad\x1b]0;title\x07\r\x9b2J [red]detail[/red] :smile:"
    nodes = sizes(3, 2)
    agents = [
        agent(name, role, *(("refused", evil) if name == "m1" else ()))
        for name, role in nodes.items()
    ]
    text = drawn(report([flow(*one) for one in asked(nodes)], agents))
    assert not any(one in text for one in "\x1b\x07\r\x9b")
    assert "[red]detail[/red] :smile:" in text


def test_an_incomplete_and_interrupted_run_is_not_called_ok() -> None:
    nodes = sizes(3, 2)
    flows = [flow(*one) for one in asked(nodes)]
    flows[0] = change(flows[0], UNREACHED)
    agents = [agent(name, role) for name, role in nodes.items()]
    text = drawn(report(flows, agents, interrupted=True))
    assert "NOT KNOWN (interrupted): nothing failed, but 1 flow was not tested" in words(text)


def test_how_long_a_killed_run_took_is_not_known() -> None:
    whole = clean()
    killed = msgspec.structs.replace(whole, interrupted=True, phases=whole.phases[:2])
    assert "took at least 0.4 s: greeting the agents 0.1 s" in words(drawn(killed))


def test_a_report_without_flows() -> None:
    text = drawn(report([], []))
    assert "0 of 0 ready" in text
