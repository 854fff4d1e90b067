"""The report for people, drawn with Rich. What it says is decided in `problems` and `matrix`.

Nothing depends on colour: each mark has a sign of its own. A terminal that is not UTF-8 gets
ASCII. Everything that came from outside (names, reasons, what agents said) is shown without
control characters, so that no agent can write to the user's terminal.
"""

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from preflight.diagnosis.naming import listed
from preflight.model.report import Finding, Report
from preflight.render.marks import MEANINGS, SIGNS, Mark, count_flows, mark_of
from preflight.render.matrix import Matrix, make_matrix
from preflight.render.problems import Problem, Section, find_problems
from preflight.render.reservations import reservations
from preflight.render.words import PHASES, count, seconds

STYLES = {
    Mark.PASSED: "green",
    Mark.WARNING: "yellow",
    Mark.UNTESTED: "magenta",
    Mark.DEGRADED: "red",
    Mark.BLOCKED: "bold red",
    Mark.INTERCEPTED: "bold red",
    Mark.EXPOSED: "bold red",
}
_ASCII = str.maketrans(
    {"→": "->", "✓": "+", "✗": "X", "≈": "%", "·": ".", "…": "...", "–": "-", "—": "-", "’": "'"}
)
_TITLES: dict[Section, str] = {
    "error": "What is wrong",
    "warning": "Warnings",
    "untested": "Not tested",
}
_LAST_PHASE = "release"
_MOST_PROBLEMS = 40
_UNBOUNDED = 10_000
_SEVERITIES = ("error", "warning", "info")
_TOLD_ABOVE = frozenset({"interrupted", "agent-unreachable", "agent-refused", "agent-lost"})
"""Codes of findings that the first line or a problem's line tells, also without any flow."""
_VERDICT_STYLES = {
    "open": "green",
    "degraded": "yellow",
    "blocked": "red",
    "intercepted": "red",
    "untested": "magenta",
}


def render_table(report: Report, console: Console) -> None:
    """Print the report on `console`, whose width, colours and encoding are the caller's choice."""
    page = _Page(console)
    problems = find_problems(report)
    matrix = make_matrix(report)
    parts: list[RenderableType] = [page.summary(report), *page.matrix(matrix)]
    for section in _TITLES:
        parts.extend(page.section(section, [one for one in problems if one.section == section]))
    parts.extend(page.findings(report, problems))
    parts.append(page.legend(matrix, problems))
    console.print(_Trimmed(Group(*parts)), highlight=False)


class _Trimmed:
    """What it holds, without the blanks that fill a line up to the width of the terminal."""

    def __init__(self, whole: RenderableType) -> None:
        self._whole = whole

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in Segment.split_lines(console.render(self._whole, options)):
            words = [one for one in line if not one.control]
            while words and not words[-1].text.strip():
                words.pop()
            yield from words[:-1]
            for last in words[-1:]:
                yield Segment(last.text.rstrip(), last.style)
            yield Segment.line()


class _Page:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._encoding = console.encoding
        self._ascii = console.options.ascii_only

    def text(self, words: str, style: str = "") -> Text:
        """Text that this terminal can show, and that can't steer it."""
        if self._ascii:
            words = words.translate(_ASCII)
            words = words.encode(self._encoding, "replace").decode(self._encoding)
        shown = "".join(one if one.isprintable() else " " for one in words)
        return Text(" ".join(shown.split()), style)

    def sign(self, mark: Mark) -> str:
        return SIGNS[mark].translate(_ASCII) if self._ascii else SIGNS[mark]

    def title(self, words: str) -> RenderableType:
        return _below(self.text(words, "bold"))

    def summary(self, report: Report) -> RenderableType:
        """Whose report it is and whether all is well, then three lines of numbers."""
        flows = report.summary.flows
        missing = [agent.node for agent in report.agents if agent.state != "ready"]
        counts = Text()
        for verdict, style in _VERDICT_STYLES.items():
            number = getattr(flows, verdict)
            counts.append(f"{number:,} {verdict}, ", style if number else "dim")
        counts.append(f"of {flows.total:,}")
        if report.summary.narrowed_from is not None:
            counts.append(f" (narrowed from {report.summary.narrowed_from:,})")
        took = ", ".join(
            f"{PHASES.get(phase.name, phase.name)} {seconds(phase.elapsed_ms)}"
            for phase in report.phases
        )
        whole = seconds(sum(phase.elapsed_ms for phase in report.phases))
        if report.interrupted and not any(phase.name == _LAST_PHASE for phase in report.phases):
            # It was killed, and the run file does not say how long after the last whole phase.
            whole = f"at least {whole}"
        lines = Table.grid(padding=(0, 2))
        lines.add_row("flows", counts)
        agents = f"{len(report.agents) - len(missing)} of {len(report.agents)} ready"
        if missing:
            agents += f" (missing: {listed(missing)})"
        lines.add_row("agents", self.text(agents, "yellow" if missing else ""))
        lines.add_row("took", self.text(f"{whole}: {took}" if took else whole))
        profiles = ", ".join(report.profiles)
        head = self.text(f"{report.cluster} ({profiles}):", "bold").append(" ")
        return Group(head.append_text(self._outcome(report)), _indented(lines))

    def _outcome(self, report: Report) -> Text:
        bad = count_flows(flow for flow in report.flows if flow.ok is False)
        unknown = count_flows(flow for flow in report.flows if flow.ok is None)
        cut = " (interrupted)" if report.interrupted else ""
        if bad:
            also = f", {unknown:,} not tested" if unknown else ""
            verb = "does" if bad == 1 else "do"
            words = f"NOT OK{cut}: {count(bad, 'flow')} {verb} not work as required{also}"
            return self.text(words, "bold red")
        if unknown or not report.summary.ok:
            verb = "was" if unknown == 1 else "were"
            untested = f"{count(unknown, 'flow')} {verb} not tested"
            words = f"NOT KNOWN{cut}: nothing failed, but {untested}"
            return self.text(words, "bold magenta")
        if report.summary.narrowed_from is None:
            words = "every required flow works"
        else:
            total = report.summary.flows.total
            verb = "was checked works" if total == 1 else "were checked work"
            words = f"the {count(total, 'flow')} that {verb}"
            words += f" (narrowed from {report.summary.narrowed_from:,})"
        words = "; ".join([words, *reservations(report)])
        return self.text(f"OK{cut}: {words}", "bold green")

    def matrix(self, matrix: Matrix) -> list[RenderableType]:
        """The matrix in the widest form that fits: names, numbers, numbers without counts."""
        if not matrix.cells:
            return []
        number = {name: str(place) for place, name in enumerate(matrix.columns, start=1)}
        table = self._draw(matrix, {}, counts=True)
        if self._wide(table):
            table = self._draw(matrix, number, counts=True)
            if self._wide(table):
                table = self._draw(matrix, number, counts=False)
            if self._wide(table):
                words = "The matrix does not fit this terminal; --format json has all of it."
                return [_below(self.text(words))]
            unnamed = [name for name in matrix.columns if name not in matrix.rows]
            key = ", ".join(f"{number[name]} {self._label(matrix, name)}" for name in unnamed)
            if key:
                return [_below(table), self.text(f"columns: {key}")]
        return [_below(table)]

    def _wide(self, table: Table) -> bool:
        unbounded = self._console.options.update(max_width=_UNBOUNDED)
        return Measurement.get(self._console, unbounded, table).maximum > self._console.width

    def _draw(self, matrix: Matrix, number: dict[str, str], *, counts: bool) -> Table:
        """With numbers, rows that are columns too begin with theirs."""
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
        table.add_column(self.text("from \\ to", "dim"), no_wrap=True)
        for column in matrix.columns:
            head = number.get(column) or self._label(matrix, column, sized=False)
            table.add_column(self.text(head), no_wrap=True)
        for row in matrix.rows:
            label = self._label(matrix, row)
            if number:
                label = f"{number.get(row, ''):>{len(str(len(number)))}} {label}"
            cells = [self._cell(matrix, row, column, counts=counts) for column in matrix.columns]
            table.add_row(self.text(label), *cells)
        return table

    def _label(self, matrix: Matrix, name: str, *, sized: bool = True) -> str:
        if sized and name in matrix.sizes:
            return f"{name} ({matrix.sizes[name]})"
        return f"{name} (VIP)" if name in matrix.vips else name

    def _cell(self, matrix: Matrix, row: str, column: str, *, counts: bool) -> Text:
        cell = matrix.cells.get((row, column))
        if cell is None:
            itself = row == column and not matrix.of_roles
            return self.text("-" if itself else "·", "dim")
        number = _short(cell.bad) if counts and cell.bad else ""
        return self.text(f"{self.sign(cell.mark)}{number}", STYLES[cell.mark])

    def section(self, section: Section, problems: list[Problem]) -> list[RenderableType]:
        """One block a problem: its sign and headline, and its notes below."""
        if not problems:
            return []
        parts: list[RenderableType] = [self.title(_TITLES[section])]
        for problem in problems[:_MOST_PROBLEMS]:
            notes = [self.text(note) for note in problem.notes]
            style = STYLES[problem.mark].replace("bold ", "")
            head = self.text(problem.headline, "bold")
            parts.append(_block(Text(self.sign(problem.mark), style), head, *notes))
        hidden = len(problems) - _MOST_PROBLEMS
        if hidden > 0:
            words = f"and {count(hidden, 'more line')} like these: --format json has all"
            parts.append(self.text(words))
        return parts

    def findings(self, report: Report, problems: list[Problem]) -> list[RenderableType]:
        """What else was noticed, and what to do: each fix once, in the order of the problems.

        So every step has its reason above it.
        """
        fixes: dict[str, list[Finding]] = {}
        noticed: list[Finding] = []
        for finding in _in_order(report, problems):
            if finding.fix:
                fixes.setdefault(finding.fix, []).append(finding)
            if not _shown_above(report, finding):
                noticed.append(finding)
        parts: list[RenderableType] = []
        if noticed:
            parts.append(self.title("Also noticed"))
        for one in noticed:
            detail = [self.text(one.detail)] if one.detail else []
            parts.append(_block(Text("-"), self._title(one), *detail))
        if fixes:
            parts.append(self.title("What to do next"))
        for number, (fix, findings) in enumerate(fixes.items(), start=1):
            lines = map(self._title, findings)
            parts.append(_block(Text(f"{number}.", "bold"), *lines, self.text(fix)))
        return parts

    def _title(self, finding: Finding) -> Text:
        return self.text(finding.title.replace(" -> ", " → "), "bold")

    def legend(self, matrix: Matrix, problems: list[Problem]) -> RenderableType:
        """The signs that this report uses."""
        marks = {cell.mark for cell in matrix.cells.values()} | {one.mark for one in problems}
        words = [f"{self.sign(mark)} {MEANINGS[mark]}" for mark in sorted(marks)]
        if any(cell.bad for cell in matrix.cells.values()):
            counted = "pairs of nodes" if matrix.of_roles else "flows"
            words.append(f"a number: that many {counted} with this sign")
        if any(
            (row, column) not in matrix.cells for row in matrix.rows for column in matrix.columns
        ):
            words.append("· nothing is required")
        return _below(self.text("; ".join(words), "dim"))


def _block(sign: Text, *lines: Text) -> Table:
    """Lines that wrap below each other, beside a sign."""
    block = Table.grid(padding=(0, 1, 0, 0))
    block.add_column(width=max(2, len(sign)), no_wrap=True)
    block.add_column(overflow="fold")
    for place, line in enumerate(lines):
        block.add_row(Text() if place else sign, line)
    return block


def _below(part: RenderableType) -> Padding:
    return Padding(part, (1, 0, 0, 0), expand=False)


def _indented(part: RenderableType) -> Padding:
    return Padding(part, (0, 0, 0, 2), expand=False)


def _short(number: int) -> str:
    """At most four characters: `"31"`, `"2.8k"`, `"277k"`."""
    if number < 1_000:
        return str(number)
    return f"{number / 1000:.1f}k" if number < 9_950 else f"{number / 1000:.0f}k"


def _in_order(report: Report, problems: list[Problem]) -> list[Finding]:
    """What was interrupted is run again first; then by severity, and as the problems stand."""
    places = {
        id(record): place for place, problem in enumerate(problems) for record in problem.records
    }

    def rank(finding: Finding) -> tuple[bool, int, int]:
        shown = [places.get(id(report.flows[flow]), len(problems)) for flow in finding.flows]
        place = min(shown, default=len(problems))
        return finding.code != "interrupted", _SEVERITIES.index(finding.severity), place

    return sorted(report.findings, key=rank)


def _shown_above(report: Report, finding: Finding) -> bool:
    """Whether every flow of the finding is in a problem's line, or it is told there itself."""
    if finding.code in _TOLD_ABOVE:
        return True
    flows = [report.flows[place] for place in finding.flows]
    return bool(flows) and all(mark_of(flow) is not Mark.PASSED for flow in flows)
