"""The kernel's own words on backlogs, and what they mean."""

from pathlib import Path

import pytest

from preflight.model.observation import Backlog
from preflight.net import backlog
from preflight.net.backlog import backlog_overflows, read_backlog

SYSCTLS = Path("/proc/sys/net")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel's settings that a test may change."""
    for name in ("core/somaxconn", "ipv4/tcp_max_syn_backlog", "ipv4/tcp_syncookies"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((SYSCTLS / name).read_text())
    monkeypatch.setattr(backlog, "_SETTINGS", tmp_path)
    return tmp_path


def test_reads_the_limits_of_this_namespace() -> None:
    found = read_backlog()
    assert found is not None
    assert found.somaxconn == int((SYSCTLS / "core/somaxconn").read_text())
    assert found.max_syn_backlog == int((SYSCTLS / "ipv4/tcp_max_syn_backlog").read_text())


@pytest.mark.parametrize(("value", "on"), [("0", False), ("1", True), ("2", True)])
def test_cookies_may_be_off_on_or_always(settings: Path, value: str, *, on: bool) -> None:
    (settings / "core/somaxconn").write_text("128\n")
    (settings / "ipv4/tcp_max_syn_backlog").write_text("512\n")
    (settings / "ipv4/tcp_syncookies").write_text(f"{value}\n")
    assert read_backlog() == Backlog(somaxconn=128, max_syn_backlog=512, syn_cookies=on)


def test_what_can_not_be_read_is_unknown(settings: Path) -> None:
    (settings / "ipv4/tcp_syncookies").unlink()
    assert read_backlog() is None


def test_without_cookies_every_drop_counts(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counters = {"ListenDrops": 11, "ListenOverflows": 3, "TCPReqQFullDrop": 2}
    monkeypatch.setattr(backlog, "_tcp_counters", lambda: counters)
    (settings / "ipv4/tcp_syncookies").write_text("1\n")
    assert backlog_overflows() == 5
    (settings / "ipv4/tcp_syncookies").write_text("0\n")
    assert backlog_overflows() == 11


def test_the_kernel_has_these_counters() -> None:
    assert {"ListenDrops", "ListenOverflows"} <= set(backlog._tcp_counters())
