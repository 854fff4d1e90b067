"""Profiles as tables, for `preflight profiles`."""

import os
import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from preflight.config import builtin_profiles, load_profile
from preflight.model.cluster import Domain, Profile, Rule
from preflight.ports import format_ports

WIDTH = 160
"""Columns where stdout is no terminal and COLUMNS is not set, so that a file or a pipe gets whole
rows."""
_REASON = 28
"""Columns that a reason has at least, where every fact has a column of its own."""
_BETWEEN = 4
"""Columns between two columns."""


def print_list() -> None:
    """The built-in profiles, on stdout."""
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("profile", "rules", "domains", "what it is"):
        table.add_column(heading, no_wrap=heading == "profile")
    for name in builtin_profiles():
        profile = load_profile(name)
        counts = str(len(profile.rules)), str(len(profile.domains))
        table.add_row(name, *counts, escape(profile.description))
    stdout_console().print(table)


def print_profile(profile: Profile) -> None:
    """Every rule and domain of one profile, and their sources, on stdout."""
    console = stdout_console()
    console.print(f"[bold]{escape(profile.name)}[/bold]  {escape(profile.description)}")
    console.print(_rules(profile, console.width))
    if profile.domains:
        console.print(_domains(profile, console.width))
    console.print("[bold]Sources[/bold]")
    console.print(_sources(profile))


def stdout_console() -> Console:
    """As wide as the terminal or COLUMNS, or `WIDTH` where there is neither."""
    own = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(file=sys.stdout, width=None if own else WIDTH)


def _sources(profile: Profile) -> Table:
    numbered = Table.grid(padding=(0, 1))
    numbered.add_column(no_wrap=True)
    numbered.add_column(overflow="fold")
    for source, number in _numbers(profile).items():
        numbered.add_row(f"  {escape(number)}", escape(source))
    return numbered


def _rules(profile: Profile, width: int) -> Table:
    marks = _numbers(profile)
    rows = [
        (
            rule.name,
            f"{', '.join(rule.sources)} → {', '.join(rule.destinations)}",
            _ports(rule),
            f"{_why(rule)} {marks.get(rule.source_text, '')}",
            rule.profile,
        )
        for rule in profile.rules
    ]
    headings = ("rule", "from → to", "ports", "why [source]", "profile")
    return _table("Rules", headings, rows, width)


def _domains(profile: Profile, width: int) -> Table:
    marks = _numbers(profile)
    rows = [
        (
            domain.pattern,
            ", ".join(domain.sources),
            "\n".join(domain.hosts),
            f"{domain.why} {marks.get(domain.source_text, '')}",
            domain.profile,
        )
        for domain in profile.domains
    ]
    headings = ("domain", "from", "hosts", "why [source]", "profile")
    return _table("Install domains", headings, rows, width)


def _table(
    title: str, headings: tuple[str, ...], rows: Sequence[tuple[str, ...]], width: int
) -> Table:
    """A column each, or where names would be cut in two all under each other."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    longest = [max(map(_longest_word, cells)) for cells in zip(headings, *rows, strict=True)]
    longest[-2] = _REASON
    if sum(longest) + _BETWEEN * len(longest) > width:
        table.add_column(escape(", ".join(headings[:-1])), overflow="fold")
        for row in rows:
            table.add_row(escape("\n".join(row[:-1])), end_section=True)
        return table
    for place, heading in enumerate(headings):
        names = all(" " not in row[place] for row in rows)
        table.add_column(escape(heading), overflow="fold", no_wrap=names)
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _longest_word(text: str) -> int:
    """In characters."""
    return max(map(len, text.split()), default=0)


def _numbers(profile: Profile) -> dict[str, str]:
    """A short mark for each source: they are long, and most are the same few."""
    stated: tuple[Rule | Domain, ...] = (*profile.rules, *profile.domains)
    texts = dict.fromkeys(one.source_text for one in stated if one.source_text)
    return {text: f"[{number}]" for number, text in enumerate(texts, start=1)}


def _ports(rule: Rule) -> str:
    return ", ".join(f"{format_ports(one.ranges)}/{one.protocol}" for one in rule.ports)


def _why(rule: Rule) -> str:
    marks = [] if rule.required else ["not required"]
    if rule.expected != "open":
        marks.append(f"must be {rule.expected}")
    if rule.via != "address":
        marks.append(f"at the {rule.via} address")
    return f"{rule.why} ({', '.join(marks)})" if marks else rule.why
