"""Profiles as tables, for `preflight profiles`."""

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
"""Columns where stdout is no terminal, so that a file or a pipe gets whole rows."""
_WIDE = 130
"""Columns from which every fact has a column of its own."""


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
    wide = console.width >= _WIDE
    console.print(_rules(profile, wide=wide))
    if profile.domains:
        console.print(_domains(profile, wide=wide))
    console.print("[bold]Sources[/bold]")
    for source, number in _numbers(profile).items():
        console.print(f"  {number} {source}", markup=False, highlight=False, soft_wrap=True)


def stdout_console() -> Console:
    """As wide as the terminal, or `WIDTH` where stdout is none."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else WIDTH)


def _rules(profile: Profile, *, wide: bool) -> Table:
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
    return _table(
        "Rules", ("rule", "from → to", "ports", "why [source]", "profile"), rows, wide=wide
    )


def _domains(profile: Profile, *, wide: bool) -> Table:
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
    return _table("Install domains", headings, rows, wide=wide)


def _table(
    title: str, headings: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, wide: bool
) -> Table:
    """A column each, or where there is little room the first ones under each other."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    if not wide:
        stacked, why = headings[:-2], headings[-2]
        table.add_column(escape(", ".join(stacked)), overflow="fold", ratio=1)
        table.add_column(escape(why), overflow="fold", ratio=1)
        for row in rows:
            table.add_row(escape("\n".join(row[:-2])), escape(row[-2]), end_section=True)
        return table
    for heading in headings:
        table.add_column(escape(heading), overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


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
