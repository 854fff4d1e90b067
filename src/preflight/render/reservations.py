"""What an OK must not hide: what passed, and not quite as it should."""

from collections.abc import Iterator

from preflight.model.report import Cause, Report, Verdict
from preflight.render.marks import Mark, count_flows, mark_of
from preflight.render.words import count


def reservations(report: Report) -> Iterator[str]:
    """A clause for each kind of warning, and for proofs that are weaker: `"2 flows lose packets"`.

    Nothing where all is well.
    """
    warned = [flow for flow in report.flows if mark_of(flow) is Mark.WARNING]
    cut_by_size = [flow for flow in warned if flow.cause is Cause.PATH_MTU]
    if cut_by_size:
        # The full size is tried on one port of each way: it says something of the way.
        ways = len({(flow.source, flow.destination, flow.family) for flow in cut_by_size})
        yield f"full-size packets do not pass on {count(ways, 'path')}"
    degraded = (flow for flow in warned if flow.verdict is Verdict.DEGRADED)
    lossy = count_flows(flow for flow in degraded if flow.cause is not Cause.PATH_MTU)
    if lossy:
        yield f"{count(lossy, 'flow')} {'loses' if lossy == 1 else 'lose'} packets"
    failing = count_flows(flow for flow in warned if flow.verdict is not Verdict.DEGRADED)
    if failing:
        yield f"{failing:,} that {'is' if failing == 1 else 'are'} not required {_do(failing)} not"
    # Another program holds the port: it may be the service, or be in the service's way.
    connected = count_flows(flow for flow in report.flows if flow.proof == "connection")
    if connected:
        yield f"{connected:,} by connection only"


def _do(number: int) -> str:
    return "does" if number == 1 else "do"
