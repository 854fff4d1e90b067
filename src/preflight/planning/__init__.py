"""Cluster and profile -> flows -> plan. Pure: the same input gives the same plan."""

from preflight.planning.counting import ControlConnection, PlanCount, count
from preflight.planning.flows import expand_flows, narrow
from preflight.planning.plan import make_plan, sample_ports

__all__ = [
    "ControlConnection",
    "PlanCount",
    "count",
    "expand_flows",
    "make_plan",
    "narrow",
    "sample_ports",
]
