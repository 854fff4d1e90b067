"""The pipeline: what `preflight check` does, on one screen. The first file to read.

    cluster, profile -> flows -> plan -> observations of both ends -> report

`planning` and `diagnosis` are pure; `gather_observations` is the only I/O.
"""

import asyncio
import secrets

from msgspec import Struct, structs

import preflight
from preflight.coordinator.handles import Dial
from preflight.coordinator.observer import RunObserver
from preflight.coordinator.record import RunRecord
from preflight.coordinator.run import gather_observations, utc_now
from preflight.diagnosis import diagnose
from preflight.model.cluster import Cluster, Profile
from preflight.model.plan import Limits, Plan
from preflight.model.report import Report
from preflight.net.identity import describe_process
from preflight.planning import expand_flows, make_plan, narrow
from preflight.ports import Ranges
from preflight.wire.runfile import EndLine, RunLine


class Narrowing(Struct, frozen=True, kw_only=True):
    """Which of the flows are wanted; empty: all of them."""

    only: tuple[str, ...] = ()
    """`"worker:control-plane"`: role or node on either side."""
    sources: tuple[str, ...] = ()
    destinations: tuple[str, ...] = ()
    ports: Ranges = ()


def plan_run(
    cluster: Cluster,
    profile: Profile,
    narrowing: Narrowing,
    *,
    limits: Limits,
    deadline: float | None,
) -> Plan:
    """Everything that a run will do. Raises `ConfigError` where nothing is left to do, or the
    limits are too small for it. `deadline` is in seconds (None: what the plan needs).
    """
    wanted = narrow(
        expand_flows(cluster, profile),
        cluster,
        only=narrowing.only,
        sources=narrowing.sources,
        destinations=narrowing.destinations,
        ports=narrowing.ports,
    )
    plan = make_plan(wanted, cluster, profile, limits=limits, run_id=secrets.token_hex(16))
    if deadline is None:
        return plan
    return structs.replace(plan, limits=structs.replace(plan.limits, deadline=deadline))


async def check(
    plan: Plan,
    dial: Dial,
    observer: RunObserver,
    record: RunRecord,
    stop: asyncio.Event,
    *,
    strict: bool = False,
) -> Report:
    """Run a plan and judge what was seen.

    `stop` ends the run early, with what was learned; `strict` makes degraded flows fail.
    """
    started = utc_now()
    record.write(RunLine(version=preflight.__version__, started=started, plan=plan))
    observations = await gather_observations(
        plan, dial, describe_process(), observer, record.write, stop
    )
    # The run file says it once, in its first line: its report is to be the one that we print.
    observations = structs.replace(observations, started=started)
    report = diagnose(plan, observations, strict=strict)
    record.write(EndLine(finished=report.finished, interrupted=report.interrupted, report=report))
    return report
