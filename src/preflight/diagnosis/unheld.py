"""Virtual addresses that are on no machine: one finding each, whoever noticed it.

Sources in the address's own network segment hear nothing to their ARP; the others hear ICMP
host-unreachable of a router, each from another address of it. All that is one cause.
"""

from collections.abc import Iterator, Sequence

from msgspec import structs

from preflight.diagnosis import catalog
from preflight.diagnosis.grouping import describe, group_records, list_ends
from preflight.diagnosis.index import Index, canonical
from preflight.diagnosis.naming import listed
from preflight.model.plan import Plan
from preflight.model.report import Cause, Finding, FlowRecord, Verdict

_SIGNS = frozenset({Cause.NO_NEIGHBOUR, Cause.ICMP_HOST_UNREACHABLE})


def unheld_vips(plan: Plan, index: Index, records: Sequence[FlowRecord]) -> list[int]:
    """The required flows (indexes) to VIPs of which nothing was heard but that nobody has them."""
    heard = {address for _, address in index.heard}
    nowhere = {vip.name for vip in plan.vips if canonical(vip.address) not in heard}
    return [
        number
        for number, record in enumerate(records)
        if record.destination in nowhere
        and record.verdict is Verdict.BLOCKED
        and record.cause in _SIGNS
        and record.required
        and record.expected == "open"
    ]


def vip_findings(plan: Plan, index: Index, records: Sequence[FlowRecord]) -> Iterator[Finding]:
    """One finding for each such VIP, its port and those who want it."""
    numbers = unheld_vips(plan, index, records)
    alike = list(records)
    for number in numbers:
        alike[number] = structs.replace(
            records[number], cause=Cause.NO_NEIGHBOUR, where=None, reported_by=None
        )
    for group in group_records(alike, numbers):
        ours = [records[number] for number in group.flows]
        sources, vip = list_ends(group, records)
        routers = dict.fromkeys(
            record.reported_by
            for record in ours
            if record.reported_by and record.cause is Cause.ICMP_HOST_UNREACHABLE
        )
        more = len(ours) - 1
        yield catalog.VIP_UNHELD.fill(
            flows=group.flows,
            flow=describe(group, plan),
            detail=ours[0].detail + (f" (and {more} more like it)" if more else ""),
            destinations=vip,
            otherwise=f"check the routes to it on {listed(list(routers))}"
            if routers
            else f"is it in the same network segment as {sources}",
            mark="." if routers else "?",
        )
