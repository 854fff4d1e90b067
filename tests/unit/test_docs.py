"""What the documents say is checked against the program: links, commands, words, examples."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer.main

from preflight.cli.app import app
from preflight.config import load_cluster, load_profile
from preflight.diagnosis import catalog
from preflight.model.plan import SECOND_LOOK_INTERVAL, Limits
from preflight.model.report import Cause, Verdict, Where
from preflight.planning import expand_flows

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
REPORT_PAGE = ROOT / "docs" / "reading-a-report.md"

LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<to>[^)\s]+)\)")
BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`(?P<text>preflight [^`\n]+)`")
TYPED = re.compile(r"^(?:docker run .* )?(?P<command>preflight [a-z].*)$", re.MULTILINE)
HEADING = re.compile(r"^(?P<level>#+) (?P<title>.+)$", re.MULTILINE)

Page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return BLOCK.sub("", page.read_text())


def links(page: Path) -> list[str]:
    return [match["to"] for match in LINK.finditer(prose(page))]


def anchors(page: Path) -> set[str]:
    titles = (match["title"].lower() for match in HEADING.finditer(prose(page)))
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


def section(page: Path, title: str) -> str:
    """Everything below a heading of level two, until the next of that level."""
    parts = re.split(r"^## (.+)$", page.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[title]


def first_column(text: str) -> list[str]:
    """The words in backticks that table rows begin with, in order."""
    rows = re.findall(r"^\| (`[^|]+) \|", text, flags=re.MULTILINE)
    return [word for row in rows for word in re.findall(r"`([^`]+)`", row)]


def shown_commands(page: Path) -> list[str]:
    """Each `preflight …` that a reader may type: lines of blocks, and whole ones in the text."""
    text = page.read_text()
    blocks = [block["body"] for block in BLOCK.finditer(text) if not block["language"]]
    lines = "\n".join(blocks).replace("\\\n", " ")
    typed = [match["command"] for match in TYPED.finditer(lines)]
    return typed + [match["text"] for match in INLINE.finditer(prose(page))]


def toml_blocks(page: Path) -> list[str]:
    return [block["body"] for block in BLOCK.finditer(page.read_text()) if block["language"]]


def words_of(command: str) -> list[str]:
    """The arguments after `preflight`, without a comment or a redirection."""
    words = shlex.split(command, comments=True)[1:]
    return words[: words.index(">")] if ">" in words else words


def test_there_is_something_to_check() -> None:
    assert sum(len(links(page)) for page in PAGES) > 30
    assert sum(len(shown_commands(page)) for page in PAGES) > 20


@Page
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), link
        assert not anchor or anchor in anchors(place), link


def test_every_page_is_linked_from_another() -> None:
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in links(page)
        if "://" not in link
    }
    assert {page for page in PAGES if page.name != "README.md"} <= linked


def test_readme_begins_with_the_two_commands() -> None:
    first = next(BLOCK.finditer((ROOT / "README.md").read_text()))["body"].splitlines()
    assert [line.split()[0] for line in first] == ["scripts/demo", "scripts/test"]
    assert all((ROOT / line.split()[0]).is_file() for line in first)


@Page
def test_commands_are_understood(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFLIGHT_KEY_FILE", "any.key")
    for shown in shown_commands(page):
        command, words = typer.main.get_command(app), words_of(shown)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]  # type: ignore[attr-defined]  # a group has it
        mention = not words
        assert not isinstance(command, typer.core.TyperGroup) or mention, shown
        if not mention:
            # Raises where an option, a value or an argument is unknown or missing; runs nothing.
            command.make_context(shown, words)


@pytest.mark.parametrize(
    ("title", "words"),
    [("Verdicts", Verdict), ("Causes", Cause), ("Where", Where)],
)
def test_every_word_of_a_report_is_explained_once(
    title: str, words: type[Verdict] | type[Cause] | type[Where]
) -> None:
    explained = first_column(section(REPORT_PAGE, title))
    assert sorted(explained) == sorted(word.value for word in words)


def test_every_finding_is_explained_once() -> None:
    codes = [kind.code for kind in vars(catalog).values() if isinstance(kind, catalog.Kind)]
    assert sorted(first_column(section(REPORT_PAGE, "Findings"))) == sorted(codes)


def test_limits_are_the_ones_that_hold() -> None:
    limits, text = Limits(), (ROOT / "docs" / "limits-and-pace.md").read_text()
    for row in (
        f"in the whole run | {limits.rate:,.0f} a second",
        f"within 120 s | {limits.max_half_open:,};",
        f"waiting for one silent port | {limits.patience:g} s;",
        f"first pass | {limits.deadline:g} s,",
        f"second look | {limits.second_look:g} s; one port every {SECOND_LOOK_INTERVAL:g} s",
        f"waiting for an agent | {limits.greet:g} s,",
        f"its answer | 256; {limits.full_size:,} once",
    ):
        assert row in text, row


@Page
def test_examples_of_files_can_be_read(page: Path, tmp_path: Path) -> None:
    for text in toml_blocks(page):
        name = text.splitlines()[0].removeprefix("# ")
        path = tmp_path / name
        path.write_text(text)
        if "nodes" in tomllib.loads(text):
            cluster, profile = load_cluster(path)
            assert expand_flows(cluster, profile)
        else:
            assert load_profile(path).rules
