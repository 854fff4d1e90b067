"""The same clusters with the same faults, in memory and on the kernel's own network."""

from collections import defaultdict

import pytest

from preflight.model.report import Cause, FlowRecord, Verdict, Where
from preflight.ports import parse_ports
from tests.conformance.group import Case, records_of_case, table_of
from tests.conformance.groups import EVERY_CASE, GROUPS
from tests.conformance.networks import CheckOn, Network
from tests.memory.running import Checked, ports_planned, ports_told

every_network = pytest.mark.parametrize("network", ["memory", "namespaces"])
every_group = pytest.mark.parametrize("group", GROUPS)
CAPTURE_TELLS = {Where.RETURN_PATH, Where.SOURCE_INGRESS}
"""Places that nothing but captured packets can tell."""
NOT_MADE_HERE = {Cause.ICMP_OTHER}
"""The kernel sends no other ICMP error to a connection than those that have names."""


@every_network
@pytest.mark.parametrize(("group", "name"), EVERY_CASE)
def test_pair_is_told_as_its_fault_demands(
    check_on: CheckOn, network: Network, group: str, name: str
) -> None:
    case = next(one for one in GROUPS[group].cases if one.name == name)
    records = records_of_case(check_on(network, group).report, case)

    assert table_of(records) == case.table, [record.detail for record in records]


@every_network
@every_group
def test_pairs_without_a_fault_are_left_alone(
    check_on: CheckOn, network: Network, group: str
) -> None:
    chosen = GROUPS[group]
    taken = {(case.source, case.destination, case.family) for case in chosen.cases}
    others: dict[tuple[str, str, int], list[FlowRecord]] = defaultdict(list)
    for record in check_on(network, group).report.flows:
        pair = (record.source, record.destination, record.family)
        if pair not in taken and chosen.is_well(record.source, record.destination):
            others[pair].append(record)

    assert {pair: table_of(records) for pair, records in others.items()} == dict.fromkeys(
        others, chosen.otherwise
    )


@every_network
@every_group
def test_exit_code_is_the_worst_of_all_flows(
    check_on: CheckOn, network: Network, group: str
) -> None:
    assert check_on(network, group).exit_code == GROUPS[group].exit_code


@every_network
@every_group
def test_each_flow_of_the_plan_is_told_exactly_once(
    check_on: CheckOn, network: Network, group: str
) -> None:
    planned = check_on("memory", group)
    assert isinstance(planned, Checked)

    assert ports_told(check_on(network, group).report) == ports_planned(planned.plan)


# How far a hurried run comes is a matter of time.
@pytest.mark.parametrize("group", sorted(GROUPS.keys() - {"hurried"}))
def test_fake_tells_all_that_the_real_network_tells(check_on: CheckOn, group: str) -> None:
    """More than the tables: evidence as well, of every flow, also of those without a case."""
    fake, real = (
        {_place(record): _facts(record) for record in check_on(network, group).report.flows}
        for network in ("memory", "namespaces")
    )

    assert fake == real


@every_network
def test_hurried_run_leaves_the_rest_untested(check_on: CheckOn, network: Network) -> None:
    report = check_on(network, "hurried").report
    tcp = [record for record in report.flows if record.protocol == "tcp"]

    assert {(record.verdict, record.cause, record.ok) for record in tcp} == {
        (Verdict.OPEN, None, True),
        (Verdict.UNTESTED, Cause.SKIPPED, None),
    }
    skipped = next(record for record in tcp if record.cause is Cause.SKIPPED)
    assert parse_ports(skipped.ports)[-1][1] == 30_119


def test_every_verdict_cause_and_place_has_a_case() -> None:
    rows = [
        expected
        for group in GROUPS.values()
        for case in group.cases
        for expected in case.table.values()
    ]

    assert {row.verdict for row in rows} == set(Verdict)
    assert {row.cause for row in rows} | {Cause.SKIPPED} == {None, *Cause} - NOT_MADE_HERE
    assert {row.where for row in rows} == {None, *Where} - CAPTURE_TELLS


def test_no_two_cases_share_a_pair() -> None:
    for group in GROUPS.values():
        pairs = [_pair(case) for case in group.cases]
        assert len(pairs) == len(set(pairs))


def _pair(case: Case) -> tuple[str, str, int]:
    return case.source, case.destination, case.family


def _place(record: FlowRecord) -> tuple[object, ...]:
    return (
        record.rule,
        record.source,
        record.destination_address,
        record.protocol,
        record.ports,
    )


def _facts(record: FlowRecord) -> dict[str, object]:
    """Everything but numbers and names that differ from one run to the next."""
    evidence = record.evidence
    return {
        "verdict": record.verdict,
        "cause": record.cause,
        "where": record.where,
        "ok": record.ok,
        "proof": record.proof,
        "reported_by": record.reported_by,
        "observed_source": record.observed_source,
        "backends": record.backends and set(record.backends),
        "icmp": evidence.icmp,
        "seen": evidence.seen_by_destination,
        "where_possible": evidence.where_possible,
        "answered_by": evidence.answered_by,
        "answered": evidence.answered > 0,
        "owner": evidence.owner is not None,
    }
