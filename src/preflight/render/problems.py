"""What is wrong in a report, grouped so that one cause is one `Problem`. Pure: no Rich here."""

import re
from typing import Literal, NamedTuple, TypeAlias

from preflight.diagnosis.naming import listed
from preflight.diagnosis.notes import INTERRUPTED, LEFT_OUT
from preflight.model.observation import Reason
from preflight.model.report import AgentRecord, Cause, FlowRecord, Report, Verdict, Where
from preflight.render.marks import Mark, count_flows, mark_of
from preflight.render.naming import Box, Names, boxes
from preflight.render.words import CAUSES, WHERES, count, ports_text

Section: TypeAlias = Literal["error", "warning", "untested"]

_AGENT_CAUSES = (Cause.AGENT_UNREACHABLE, Cause.AGENT_REFUSED, Cause.AGENT_LOST)
_AGENT_STATES = {
    "unreachable": "agent not reached",
    "refused": "agent refuses to take part",
    "lost": "agent lost during the run",
}
_NOBODY = "in the source's own network segment, where nobody answers for the address"
"""`source-egress` of `no-neighbour`: the packet never left the source, which is not to blame."""
_PLACE = re.compile(r"\[[0-9A-Fa-f:.]+\]:\d+|\d+\.\d+\.\d+\.\d+(:\d+)?")
"""An address, with its port: `10.0.1.11:10888`, `[fd00::11]:10888`."""
_MOST_ITEMS = 5
_SECTIONS: tuple[Section, ...] = ("error", "warning", "untested")


class Problem(NamedTuple):
    """One line for people, and what stands below it."""

    section: Section
    mark: Mark
    headline: str
    notes: tuple[str, ...]
    flows: int
    """How many (source, destination, protocol, family, port) it explains."""
    records: tuple[FlowRecord, ...] = ()


class Symptom(NamedTuple):
    """What the records of one problem have in common."""

    section: Section
    mark: Mark
    verdict: Verdict
    cause: Cause | None
    where: Where | None
    reporter: str
    required: bool
    exposure: bool


def find_problems(report: Report) -> list[Problem]:
    """Everything that is not as it must be: errors, then warnings, then what is untested.

    Within a section the problem with the most flows comes first.
    """
    names = Names(report)
    absent = {agent.node for agent in report.agents if agent.state != "ready"}
    without_agent: dict[str, list[FlowRecord]] = {name: [] for name in names.ordered(absent)}
    symptoms: dict[Symptom, list[FlowRecord]] = {}
    cut_short: list[FlowRecord] = []
    left_out: list[FlowRecord] = []
    for record in report.flows:
        mark = mark_of(record)
        if mark is Mark.PASSED:
            continue
        culprit = _missing_agent(record, absent) if record.ok is None else None
        if culprit is not None:
            without_agent[culprit].append(record)
        elif record.cause is Cause.SKIPPED and record.detail.startswith(INTERRUPTED):
            cut_short.append(record)
        elif record.cause is Cause.SKIPPED and record.detail.startswith(LEFT_OUT):
            left_out.append(record)
        else:
            symptom = _symptom(record, mark, to_vip=record.destination in names.vips)
            symptoms.setdefault(symptom, []).append(record)
    found = _untried(cut_short, "the run was interrupted")
    found += _untried(left_out, LEFT_OUT)
    found += _agent_problems(report, names, without_agent)
    describe = _Describer(report, names)
    for symptom in sorted(symptoms, key=lambda one: _SECTIONS.index(one.section)):
        found.extend(describe.problems(symptom, symptoms))
    return sorted(found, key=lambda one: (_SECTIONS.index(one.section), -one.flows))


def _missing_agent(record: FlowRecord, absent: set[str]) -> str | None:
    """The node whose agent's absence explains an untested record."""
    if record.cause not in _AGENT_CAUSES:
        return None
    return next((name for name in (record.source, record.destination) if name in absent), None)


def _symptom(record: FlowRecord, mark: Mark, *, to_vip: bool) -> Symptom:
    sections: dict[bool | None, Section] = {False: "error", True: "warning", None: "untested"}
    reporters = {
        None: "",
        record.source_address: "the source itself",
        record.destination_address: "the destination itself",
    }
    if to_vip and record.cause is Cause.ICMP_HOST_UNREACHABLE:
        # A VIP that is on no machine: each source hears it from another address of its router.
        reporters[record.reported_by] = "the routers"
    return Symptom(
        section=sections[record.ok],
        mark=mark,
        verdict=record.verdict,
        cause=record.cause,
        where=record.where,
        reporter=reporters.get(record.reported_by, record.reported_by or ""),
        required=record.required,
        exposure=record.expected == "blocked",
    )


def _untried(records: list[FlowRecord], why: str) -> list[Problem]:
    """One problem for everything that one word of whoever ran it left untested."""
    if not records:
        return []
    flows = count_flows(records)
    headline = f"{count(flows, 'flow')} not tested: {why}"
    return [Problem("untested", Mark.UNTESTED, headline, (), flows, tuple(records))]


def _agent_problems(
    report: Report, names: Names, without_agent: dict[str, list[FlowRecord]]
) -> list[Problem]:
    """One problem for all agents that are missing in the same way."""
    alike: dict[tuple[str, str], list[str]] = {}
    details: dict[str, str] = {}
    for agent in report.agents:
        not_called = report.interrupted and agent.reason is Reason.NOT_CALLED
        if agent.node in without_agent and not not_called:
            alike.setdefault((agent.state, _without_own(agent)), []).append(agent.node)
            details[agent.node] = agent.detail
    found = []
    for (state, _), nodes in alike.items():
        detail = details[nodes[0]]
        if len({details[node] for node in nodes}) > 1:
            detail += f" (and {len(nodes) - 1} more like it)"
        records = [record for node in nodes for record in without_agent[node]]
        flows = count_flows(records)
        these = "it" if len(nodes) == 1 else "them"
        headline = f"{names.of(nodes)}: {_AGENT_STATES[state]}"
        headline += f"; {count(flows, 'flow')} from and to {these} not tested" if flows else ""
        notes = (detail,) if detail else ()
        found.append(Problem("untested", Mark.UNTESTED, headline, notes, flows, tuple(records)))
    return found


def _without_own(agent: AgentRecord) -> str:
    """What is said of an agent, without what is its own in it: where it was called, and since
    when another run holds it, which is one and the same run.
    """
    if agent.reason in {Reason.HELD, Reason.KEY, Reason.NO_HOST, Reason.NOT_AN_AGENT}:
        return agent.reason
    return _PLACE.sub("…", agent.detail)


class _Describer:
    """Turns the records of one symptom into problems."""

    def __init__(self, report: Report, names: Names) -> None:
        self._names = names
        self._rules = {rule.name: rule for rule in report.rules}
        self._families: dict[tuple[str, ...], set[int]] = {}
        self._failing: dict[tuple[str, ...], set[int]] = {}
        self._alike: dict[tuple[str, str, bool, bool], list[FlowRecord]] = {}
        for one in report.flows:
            self._families.setdefault(_subject(one), set()).add(one.family)
            self._failing.setdefault(_result(one), set()).add(one.family)
            for end in ("source", "destination"):
                key = (end, getattr(one, end), one.required, one.expected == "blocked")
                self._alike.setdefault(key, []).append(one)

    def problems(
        self, symptom: Symptom, symptoms: dict[Symptom, list[FlowRecord]]
    ) -> list[Problem]:
        """First the nodes that nothing reaches, or that reach nothing; then the rest by boxes.

        What such a node has that is not required fails for the same cause: it is told with the
        error, and taken from the warning that it would have been.
        """
        left = symptoms[symptom]
        warning = symptom._replace(section="warning", mark=Mark.WARNING, required=False)
        found: list[Problem] = []
        for end, who in (("destination", "every source → {}"), ("source", "{} → everything")):
            cut_off = self._cut_off(symptom, left, end)
            if cut_off:
                gone = [one for one in left if getattr(one, end) in cut_off]
                left = [one for one in left if getattr(one, end) not in cut_off]
                if symptom.section == "error" and warning in symptoms:
                    twins = symptoms[warning]
                    gone += [one for one in twins if getattr(one, end) in cut_off]
                    symptoms[warning] = [one for one in twins if getattr(one, end) not in cut_off]
                headline = who.format(self._names.of(cut_off))
                found.append(self._describe(symptom, headline, gone))
        return found + self._by_boxes(symptom, left)

    def _cut_off(self, symptom: Symptom, records: list[FlowRecord], end: str) -> set[str]:
        """Sources, or destinations, all of whose flows have this symptom: several ports, and
        several nodes at their other end.
        """
        other = "source" if end == "destination" else "destination"
        by_node: dict[str, list[FlowRecord]] = {}
        for one in records:
            by_node.setdefault(getattr(one, end), []).append(one)
        return {
            name
            for name, own in by_node.items()
            if len(own) == len(self._alike[end, name, symptom.required, symptom.exposure])
            and len({(one.protocol, one.ports) for one in own}) > 1
            and len({getattr(one, other) for one in own}) > 1
        }

    def _by_boxes(self, symptom: Symptom, records: list[FlowRecord]) -> list[Problem]:
        asked: dict[str, list[FlowRecord]] = {}
        for record in records:
            asked.setdefault(self._asked(record), []).append(record)
        together: dict[Box, list[FlowRecord]] = {}
        for same in asked.values():
            for box in boxes((one.source, one.destination) for one in same):
                inside = [one for one in same if one.destination in box.destinations]
                together.setdefault(box, []).extend(inside)
        return [
            self._describe(symptom, self._names.both(box), inside)
            for box, inside in together.items()
        ]

    def _asked(self, record: FlowRecord) -> str:
        """The ports; with the family, where only one of a pair's two has this symptom."""
        alone = self._failing[_result(record)] != self._families[_subject(record)]
        family = f" over IPv{record.family}" if alone else ""
        return ports_text(record.ports, record.protocol) + family

    def _describe(self, symptom: Symptom, who: str, records: list[FlowRecord]) -> Problem:
        ports = listed(list(dict.fromkeys(map(self._asked, records))), _MOST_ITEMS)
        headline = f"{who} {ports} {_said(symptom, records)}"
        notes = [*_explained(symptom, records), *self._why(records)]
        flows = count_flows(records)
        return Problem(symptom.section, symptom.mark, headline, tuple(notes), flows, tuple(records))

    def _why(self, records: list[FlowRecord]) -> list[str]:
        """What the flows are for: rules that give the same reason share a line."""
        reasons: dict[str, list[str]] = {}
        for name in dict.fromkeys(record.rule for record in records):
            why = self._rules[name].why if name in self._rules else ""
            reasons.setdefault(why, []).append(name)
        lines = [
            f"{'rule' if len(names) == 1 else 'rules'} {listed(names)}: {why}".removesuffix(": ")
            for why, names in reasons.items()
        ]
        hidden = len(lines) - _MOST_ITEMS
        return [*lines[:_MOST_ITEMS], f"and {count(hidden, 'more rule')}"] if hidden > 0 else lines


def _subject(record: FlowRecord) -> tuple[str, ...]:
    return (record.source, record.destination, record.protocol, record.rule)


def _result(record: FlowRecord) -> tuple[str, ...]:
    return (*_subject(record), record.ports, record.verdict, record.cause or "")


def _said(symptom: Symptom, records: list[FlowRecord]) -> str:
    """The verdict, its cause and who reported it: `"blocked: reset, by 10.0.9.1"`."""
    if symptom.mark is Mark.EXPOSED and symptom.verdict is Verdict.OPEN:
        return "open, and must be blocked"
    said: str = symptom.verdict.value
    if symptom.cause is not None:
        said += f": {symptom.cause.value}"
    losses = [one.loss for one in records if one.loss]
    if losses and symptom.verdict is Verdict.DEGRADED:
        low, high = f"{min(losses) * 100:.2g}", f"{max(losses) * 100:.2g}"
        said += f" of {low} %" if low == high else f" of {low} to {high} %"
    if symptom.reporter:
        said += f", by {symptom.reporter}"
    if symptom.mark is Mark.EXPOSED:
        said += ", and must be blocked"
    if symptom.exposure and symptom.section == "untested" and symptom.verdict is Verdict.BLOCKED:
        said += ", which does not prove that a firewall blocks it"
    return said if symptom.required else f"{said} (not required)"


def _explained(symptom: Symptom, records: list[FlowRecord]) -> list[str]:
    """What was seen, and where it breaks.

    The diagnosis has a sentence for each record. Where all have the same, that is said;
    otherwise what the cause means, and one of them.
    """
    sentences = list(dict.fromkeys(one.detail for one in records))
    lines = sentences if len(sentences) == 1 and sentences[0] else []
    if not lines and symptom.cause is not None:
        lines = [CAUSES[symptom.cause]]
        lines += [f"for example: {one}" for one in sentences if one][:1]
    if symptom.where is not None:
        place = _NOBODY if symptom.cause is Cause.NO_NEIGHBOUR else WHERES[symptom.where]
        lines.append(f"where: {place}{_left_over(records)}")
    owners = dict.fromkeys(one.evidence.owner for one in records if one.evidence.owner)
    unnamed = [owner for owner in owners if not any(owner in line for line in lines)]
    if unnamed:
        lines.append("held by " + listed(unnamed))
    return lines


def _left_over(records: list[FlowRecord]) -> str:
    """Where it may be, as far as the evidence narrows it down."""
    possible = {one for record in records for one in record.evidence.where_possible}
    if not possible:
        return ""
    if len(possible) == len(Where) - 1:
        return " (at either host, or anywhere between them)"
    names = [WHERES[one] for one in Where if one in possible]
    return f"; possible: {listed(names, len(names), 'or')}"
