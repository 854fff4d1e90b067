"""One run of each group on each network, when the first test asks for it.

Without root or user namespaces the real network can't be had: skipped, loudly, and in CI a
failure, as in `tests/netns`.
"""

import asyncio
import os
from functools import cache
from pathlib import Path

import pytest

from preflight.lab.isolation import PROGRAMS, how_isolated
from tests.conformance.groups import GROUPS
from tests.conformance.namespaces import check_in_namespaces
from tests.conformance.networks import CheckedSomehow, CheckOn, Network
from tests.memory.running import check_in_memory

HERE = Path(__file__).parent
NEEDED = f"network namespaces need root or user namespaces, and the programs {', '.join(PROGRAMS)}"


@pytest.fixture(scope="session")
def check_on(tmp_path_factory: pytest.TempPathFactory) -> CheckOn:
    """`check_on(network, group)`: what the check of that group said there."""

    @cache
    def check(network: Network, group: str) -> CheckedSomehow:
        folder = tmp_path_factory.mktemp(f"{network}-{group}")
        setting = GROUPS[group].planted
        if network == "memory":
            return asyncio.run(check_in_memory(setting, folder))
        return check_in_namespaces(setting, folder)

    def check_where_possible(network: Network, group: str) -> CheckedSomehow:
        if network == "namespaces" and how_isolated() is None:
            if os.environ.get("CI", "").lower() in ("true", "1"):
                pytest.fail(NEEDED)
            pytest.skip(NEEDED)
        return check(network, group)

    return check_where_possible


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Half a suite that was skipped is not to be overlooked."""
    if how_isolated() is not None:
        return
    root = terminalreporter.config.rootpath
    skipped = terminalreporter.stats.get("skipped", [])
    here = [report for report in skipped if HERE in (root / report.fspath).parents]
    if here:
        terminalreporter.section("THE REAL NETWORK WAS NOT TRIED", sep="!", red=True, bold=True)
        terminalreporter.write_line(f"{len(here)} tests proved nothing: {NEEDED}")
