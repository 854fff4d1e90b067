"""Namespace tests: they need root or user namespaces, and say so loudly where they have neither."""

import os
from pathlib import Path

import pytest

from preflight.lab.isolation import PROGRAMS, how_isolated

HERE = Path(__file__).parent
NEEDED = f"network namespaces need root or user namespaces, and the programs {', '.join(PROGRAMS)}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip them all, or in CI let each one fail in `lab_privilege`."""
    if how_isolated() is not None or _is_ci():
        return
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=NEEDED))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A skip of a whole folder is not to be overlooked."""
    skipped = terminalreporter.stats.get("skipped", [])
    root = terminalreporter.config.rootpath
    here = [report for report in skipped if HERE in (root / report.fspath).parents]
    if here and how_isolated() is None:
        terminalreporter.section("NAMESPACE TESTS WERE NOT RUN", sep="!", red=True, bold=True)
        terminalreporter.write_line(f"{len(here)} tests proved nothing: {NEEDED}")


@pytest.fixture(autouse=True)
def lab_privilege() -> None:
    """In CI a missing privilege is a failure: a check that does not run protects nobody."""
    if how_isolated() is None:
        pytest.fail(NEEDED)


def _is_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("true", "1")
