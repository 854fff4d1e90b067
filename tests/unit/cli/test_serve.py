"""`preflight serve` as a process: how it begins, how it ends, and where it listens."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from preflight.cli.serve_command import _holder, _listening_place
from preflight.errors import ConfigError
from preflight.model.cluster import DEFAULT_CONTROL_PORT
from preflight.net.keys import write_keys
from tests.unit.cli.program import PREFLIGHT, A, run, sentence, serving


@pytest.fixture
def key(tmp_path: Path) -> Path:
    write_keys(tmp_path / "cluster.key")
    return tmp_path / "cluster.agent.key"


@pytest.fixture
def terminal() -> Iterator[None]:
    """What is started gets SIGHUP as from a terminal, also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_in_order(key: Path, number: signal.Signals) -> None:
    with serving(key, "--control", f"{A}:17001") as agent:
        agent.send_signal(number)
        stdout, stderr = agent.communicate(timeout=5)
    assert (agent.returncode, stdout) == (0, "")
    assert stderr.endswith("INFO stopping\n")


def test_nohup_keeps_it(key: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with serving(key, "--control", f"{A}:17003") as agent:
            agent.send_signal(signal.SIGHUP)
            with pytest.raises(subprocess.TimeoutExpired):
                agent.wait(timeout=1)
            agent.terminate()
            agent.communicate(timeout=5)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert agent.returncode == 0


def test_a_connection_in_its_handshake_does_not_keep_it(key: Path) -> None:
    with (
        serving(key, "--control", f"{A}:17002") as agent,
        socket.create_connection((A, 17002)) as silent,
    ):
        silent.sendall(b"\x16")
        agent.terminate()
        _, stderr = agent.communicate(timeout=5)
    assert agent.returncode == 0
    assert "Traceback" not in stderr


def test_a_taken_control_port(key: Path) -> None:
    with socket.create_server((A, 0)) as holder:
        port = holder.getsockname()[1]
        said = sentence(run("serve", "--key-file", key, "--control", f"{A}:{port}"))
    assert said.startswith(f"the control port can't be opened on {A}, port {port}: it is in use")
    assert f"(pid {os.getpid()}): stop that, or take another port (--control :PORT here" in said


def test_a_control_port_that_is_taken_on_one_of_all_addresses(key: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        assert f"(pid {os.getpid()})" in _holder(None, port)
        assert "in use" in sentence(run("serve", "--key-file", key, "--control", f":{port}"))


def test_an_address_of_another_machine(key: Path) -> None:
    said = sentence(run("serve", "--key-file", key, "--control", "192.0.2.1"))
    assert "address 192.0.2.1 is not on this machine" in said


def test_the_coordinators_key_is_not_for_serve(key: Path) -> None:
    said = sentence(run("serve", "--key-file", key.parent / "cluster.key"))
    assert "belongs on no node; serve needs cluster.agent.key" in said


def test_a_key_file_that_is_not_there(tmp_path: Path) -> None:
    assert "there is no key file" in sentence(run("serve", "--key-file", tmp_path / "x.key"))
    assert "Is a directory" in sentence(run("serve", "--key-file", tmp_path))
    env = {"PREFLIGHT_KEY_FILE": str(tmp_path / "y.key")}
    assert "y.key" in sentence(run("serve", env=env))


def test_without_a_key_file_it_is_a_usage_error() -> None:
    done = run("serve", env={"PREFLIGHT_KEY_FILE": ""})
    assert (done.returncode, done.stdout) == (2, "")
    assert "--key-file" in done.stderr


def test_a_key_file_that_others_can_read_is_a_warning(key: Path) -> None:
    key.chmod(0o640)
    argv = [*PREFLIGHT, "serve", "--key-file", str(key), "--control", f"{A}:17003"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as agent:
        assert agent.stderr is not None
        first = agent.stderr.readline()
        agent.terminate()
    assert "WARNING" in first
    assert "can be read by others (mode 0640): chmod 600" in first


@pytest.mark.parametrize(
    ("control", "place"),
    [
        (None, (None, DEFAULT_CONTROL_PORT)),
        ("::", (None, DEFAULT_CONTROL_PORT)),
        ("0.0.0.0", (None, DEFAULT_CONTROL_PORT)),  # noqa: S104 - what a user writes
        ("*:7", (None, 7)),
        (":7", (None, 7)),
        ("[::]:7", (None, 7)),
        ("0.0.0.0:7", (None, 7)),
        ("10.0.0.1", ("10.0.0.1", DEFAULT_CONTROL_PORT)),
        ("10.0.0.1:7", ("10.0.0.1", 7)),
        ("::1", ("::1", DEFAULT_CONTROL_PORT)),
        ("[fd00::1]:7", ("fd00::1", 7)),
    ],
)
def test_where_it_listens(control: str | None, place: tuple[str | None, int]) -> None:
    assert _listening_place(control) == place


def test_a_port_alone_is_told_how_to_be_written() -> None:
    with pytest.raises(ConfigError, match="--control: a port alone is written :10888"):
        _listening_place("10888")


@pytest.mark.parametrize("control", ["", ":", "m1", "m1:7", "10.0.0.1:0", "10.0.0.1:x", "*:99999"])
def test_where_it_can_not_listen(control: str) -> None:
    with pytest.raises(ConfigError, match="--control"):
        _listening_place(control)
