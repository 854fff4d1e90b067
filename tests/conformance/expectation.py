"""What a report must say of a flow, whatever the network is made of."""

import ipaddress
from dataclasses import dataclass, replace
from typing import Literal

from preflight.model.report import Cause, FlowRecord, Verdict, Where

Reporter = Literal["router", "source", "destination"]
"""Who sends an ICMP error: the router by its address on the source's link, or one of the ends."""


@dataclass(frozen=True)
class Expected:
    """The part of a record that the tables of verdicts, causes and places speak of."""

    verdict: Verdict
    cause: Cause | None = None
    where: Where | None = None
    reported_by: str | None = None
    answered_by: str | None = None
    ok: bool | None = None

    def when_optional(self) -> "Expected":
        """The same of a flow that is not required."""
        return replace(self, ok=True)


def proven() -> Expected:
    """It works."""
    return Expected(Verdict.OPEN, ok=True)


def degraded(cause: Cause) -> Expected:
    """It works, but not well."""
    return Expected(Verdict.DEGRADED, cause, ok=True)


def blocked(cause: Cause, where: Where = Where.UNKNOWN, by: Reporter | None = None) -> Expected:
    """It does not work."""
    return Expected(Verdict.BLOCKED, cause, where, by, ok=False)


def intercepted(cause: Cause, answered_by: str | None = None) -> Expected:
    """Somebody else answers."""
    return Expected(Verdict.INTERCEPTED, cause, answered_by=answered_by, ok=False)


def untested(cause: Cause, by: Reporter | None = None) -> Expected:
    """It could not be looked at."""
    return Expected(Verdict.UNTESTED, cause, reported_by=by)


def told(record: FlowRecord) -> Expected:
    """What a record says, in these words."""
    answered_by = record.evidence.answered_by
    return Expected(
        record.verdict,
        record.cause,
        record.where,
        _reporter(record),
        "destination" if answered_by == record.destination else answered_by,
        record.ok,
    )


def _reporter(record: FlowRecord) -> str | None:
    """The sender of the ICMP error by what it is; another address as it stands."""
    names = {
        _gateway(record.source_address): "router",
        record.source_address: "source",
        record.destination_address: "destination",
    }
    by = record.reported_by
    return names.get(by, by) if by is not None else None


def _gateway(address: str) -> str:
    length = 64 if ":" in address else 24
    return str(ipaddress.ip_network(f"{address}/{length}", strict=False).network_address + 1)
