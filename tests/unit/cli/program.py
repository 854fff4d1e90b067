"""The real program as a process, and a small cluster for it on loopback addresses."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from preflight.net.keys import write_keys

PREFLIGHT = (sys.executable, "-m", "preflight")
PATIENCE = 30.0
NET = f"127.{20 + os.getpid() % 200}.{os.getpid() // 200 % 250}"
"""Loopback addresses of this test run: another one beside it uses others."""
A, B = f"{NET}.1", f"{NET}.2"

PROFILE = """
name = "one-port"
[rules.web]
from = ["source"]
to = ["destination"]
ports = ["7000/tcp", "7000/udp"]
why = "the test asks for it"
source = "tests"
"""


def write_cluster(folder: Path) -> Path:
    """Node a, whose agent is in the check, and node b, whose agent is to be started."""
    (folder / "profile.toml").write_text(PROFILE)
    write_keys(folder / "cluster.key")
    file = folder / "cluster.toml"
    file.write_text(
        'name = "small"\nprofile = "profile.toml"\nkey_file = "cluster.key"\n'
        f'[nodes.a]\naddress = "{A}"\nroles = ["source"]\nembedded = true\n'
        f'[nodes.b]\naddress = "{B}"\nroles = ["destination"]\n'
    )
    return file


@contextmanager
def serving(key: Path, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """An agent that has said that it waits for its coordinator."""
    argv = [*PREFLIGHT, "serve", "--key-file", str(key), *options]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as agent:
        try:
            assert agent.stderr is not None
            said = ""
            while "waits for its coordinator" not in said:
                line = agent.stderr.readline()
                assert line, f"it ended: {said}"
                said += line
            yield agent
        finally:
            agent.kill()


def run(
    *words: str | Path, wrapped: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run it to its end; `wrapped` goes before it."""
    return subprocess.run(
        [*wrapped, *PREFLIGHT, *map(str, words)],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def shell(script: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which "$@" is the program with these words."""
    argv = ["bash", "-c", script, "bash", *PREFLIGHT, *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence with which it ended for a wrong use: exit code 2, nothing on stdout."""
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("preflight: ")
    return line.removeprefix("preflight: ")
