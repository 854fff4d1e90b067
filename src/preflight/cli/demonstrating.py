"""What `preflight demo` does: builds its small network, runs the real `check`, compares."""

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import typer

from preflight.cli.stopping import stop_signals
from preflight.lab import demonstration
from preflight.lab.cluster import ClusterShape, LabCluster
from preflight.lab.demonstration import OBSERVER, Planted
from preflight.lab.isolation import how_isolated
from preflight.lab.loopback import Loopback
from preflight.lab.network import Lab
from preflight.lab.owner import is_gone, read_owner, this_process
from preflight.wire.runfile import decode_run

_FOLDER_PREFIX = "preflight-demo-"
_CHECK_PATIENCE = 120.0
_INTERRUPT_PATIENCE = 10.0
EXIT_INTERRUPTED = 130


def demonstrate(format_: str, *, faults: bool, loopback: bool, keep: bool) -> int:
    """Build it, check it, take it down. Returns the exit code; `format_` is one of `check`'s."""
    # Debian keeps `ip` and `nft` where a plain user's PATH does not look.
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    on_lab = not loopback and how_isolated() is not None
    try:
        with _interruptible(), _folder() as folder:
            show = _show_on_lab if on_lab else _show_on_loopback
            agrees = show(folder, format_, faults=faults, keep=keep)
        if keep:
            _say("everything is removed")
    except KeyboardInterrupt:
        _say("interrupted; everything is removed")
        return EXIT_INTERRUPTED
    return 0 if agrees else 1


def _show_on_lab(folder: Path, output_format: str, *, faults: bool, keep: bool) -> bool:
    _say(f"a router and {len(demonstration.NODES)} nodes, as network namespaces ({how_isolated()})")
    shape = ClusterShape(demonstration.NODES, (demonstration.VIP,), name="demo")
    with Lab(demonstration.lab_nodes()) as lab:
        demonstration.plant_vip(lab)
        cluster = LabCluster(lab, shape, folder=folder)
        cluster.start_agents()
        planted = demonstration.ON_THE_LAB if faults else ()
        if faults:
            demonstration.plant_on_lab(lab)
        agrees = _check(cluster, planted, output_format)
        if keep:
            _say(f"the lab stays up until Ctrl-C; the cluster file is {cluster.file}")
            _say(f"`check` by hand, from another terminal ({OBSERVER}'s agent is part of it):")
            typer.echo(f"  {lab.typed(OBSERVER, cluster.check_argv())}", err=True)
            _say("a shell on a node:")
            for name in ("router", *lab.nodes):
                typer.echo(f"  {lab.typed(name)}", err=True)
            _wait_for_interrupt()
    return agrees


def _show_on_loopback(folder: Path, output_format: str, *, faults: bool, keep: bool) -> bool:
    _say(
        "no namespaces (they need root or user namespaces, ip and nft): the nodes are loopback"
        " addresses, 127.77.0.0/16, so there is no VIP and no firewall to plant faults in"
        if how_isolated() is None
        else "on loopback addresses, 127.77.0.0/16: no VIP, no firewall to plant faults in"
    )
    nodes = demonstration.loopback_nodes()
    with Loopback() as site:
        cluster = LabCluster(site, ClusterShape(nodes, name="demo"), folder=folder)
        planted = demonstration.ON_LOOPBACK if faults else ()
        if faults:
            demonstration.plant_on_loopback(site, nodes)
        cluster.start_agents(without=demonstration.ABSENT_ON_LOOPBACK if faults else ())
        agrees = _check(cluster, planted, output_format)
        if keep:
            _say(f"the agents run until Ctrl-C; the cluster file is {cluster.file}")
            _say("`check` by hand, from another terminal:")
            typer.echo(f"  {shlex.join(cluster.check_argv())}", err=True)
            _wait_for_interrupt()
    return agrees


def _check(cluster: LabCluster, planted: tuple[Planted, ...], output_format: str) -> bool:
    """Run the real `check`, its output going where ours goes, and compare what it found."""
    if planted:
        _say("planted, for the report to find:")
        for number, fault in enumerate(planted, start=1):
            typer.echo(f"  {number}. {fault.words}", err=True)
    run_file = cluster.folder / "run.jsonl"
    options = ("--format", output_format, "--output", str(run_file))
    check = cluster.check(OBSERVER, *options)
    try:
        check.wait(_CHECK_PATIENCE)
    except KeyboardInterrupt:
        # It has a session of its own: Ctrl-C came to us only. It still prints what it learned.
        check.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            check.wait(_INTERRUPT_PATIENCE)
        raise
    except subprocess.TimeoutExpired:
        _say(f"check did not end within {_CHECK_PATIENCE:.0f} s")
        return False
    return _compare(run_file, planted)


def _compare(run_file: Path, planted: tuple[Planted, ...]) -> bool:
    if not run_file.exists():
        _say("check wrote no report")
        return False
    with run_file.open("rb") as lines:
        report = decode_run(lines).report
    if report is None:
        _say("check did not finish its report")
        return False
    differences = demonstration.surprises(report, planted)
    if differences:
        _say("the report and what was planted differ:")
        for difference in differences:
            typer.echo(f"  {difference}", err=True)
    else:
        _say("the report says what was planted, and nothing else")
    return not differences


def _wait_for_interrupt() -> None:
    with suppress(KeyboardInterrupt):
        signal.pause()


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and a closed terminal end us as Ctrl-C does, with everything cleaned up.

    Ctrl-C has a handler too: where SIGINT is ignored (a background job of a script), the
    `check` that we start would inherit that, and could not be interrupted.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in stop_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder for key and cluster files; those of demos that were killed are removed first."""
    place = Path(tempfile.gettempdir())
    for left in place.glob(f"{_FOLDER_PREFIX}*"):
        owner = read_owner(left.name.removeprefix(_FOLDER_PREFIX))
        if owner is not None and is_gone(owner) and left.lstat().st_uid == os.getuid():
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{_FOLDER_PREFIX}{this_process()}.") as folder:
        yield Path(folder)


def _say(text: str) -> None:
    typer.echo(f"demo: {text}", err=True)
