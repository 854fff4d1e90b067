"""The agent's listeners: how soon they are ready, what an accept costs, what memory stays.

    python -m bench.listeners                   # everything: about two minutes
    python -m bench.listeners --sweeps 10 --runs 0

Two namespaces behind a router. First the engines alone: a process with everything that an agent
imports holds the NodePort range, and one in the other namespace sweeps it again and again, each
port proven. Then whole agents, and so many runs of `check` over the range. After each step:
memory (PSS), and the connections in TIME_WAIT on both ends.
"""

import argparse
import asyncio
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

import preflight.agent.service
import preflight.net.control
import preflight.net.tls  # noqa: F401 - like those above: all that an agent has in its memory
from bench.sweep import (
    ADDRESSES,
    DESTINATION,
    FIRST,
    LAST,
    PATIENCE,
    PORTS,
    PROFILE,
    SOURCE,
)
from preflight.agent.listeners import Listeners
from preflight.lab.cluster import ClusterNode, ClusterShape, LabCluster
from preflight.lab.network import Lab
from preflight.lab.processes import Popen
from preflight.lab.topology import LabNode
from preflight.model.cluster import Protocol
from preflight.model.observation import Outcome
from preflight.model.plan import Listen, Probe, ProbeOrder, Share
from preflight.model.report import Report
from preflight.ports import count_ports
from preflight.probes import ProbeContext, run_probes

HOLDER, SWEEPER = "hold", "sweep"
RUN, KEY = bytes(16), bytes(32)
READY_ROUNDS = 7
FLOODS, FLOOD, TURNS = 40, 500, 10
"""Datagrams at once, fewer than a receive buffer holds, and turns of the loop to read them in."""
SHARE = Share(rate=None, max_half_open=20_000, patience=4.0, deadline=60.0, full_size=8_192)


def main() -> None:
    """Run it and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sweeps", type=int, default=50, help="of the range, by the engines")
    parser.add_argument("--runs", type=int, default=20, help="of check")
    parser.add_argument("--part", choices=[HOLDER, SWEEPER], help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.part == HOLDER:
        asyncio.run(_hold())
    elif chosen.part == SWEEPER:
        asyncio.run(_sweep(chosen.sweeps))
    else:
        nodes = [LabNode(name, (address,)) for name, address in ADDRESSES.items()]
        with Lab(nodes) as lab:
            _measure_engine(lab, chosen.sweeps)
            if chosen.runs:
                _measure_runs(lab, chosen.runs)


def _measure_engine(lab: Lab, sweeps: int) -> None:
    holder = _start(lab, DESTINATION, HOLDER)
    told = _hear(holder)
    print(
        f"ready, {len(PORTS):,} ports, medians of {READY_ROUNDS}:"
        f"  TCP {told['tcp']:.3f} s, UDP {told['udp']:.3f} s;  memory {told['pss']:.1f} MB"
    )
    print(f"a datagram that is not ours: {told['datagram'] * 1e6:.1f} µs of CPU")
    swept = _hear(_start(lab, SOURCE, SWEEPER, "--sweeps", str(sweeps)))
    assert holder.stdin is not None
    holder.stdin.close()  # its sign that the sweeps are over
    told = _hear(holder)
    print(
        f"{sweeps} sweeps in {swept['seconds']:.1f} s:"
        f"  {swept['proven']:,} of {sweeps * len(PORTS):,} proven, {told['dropped']} dropped;"
        f"  {told['cpu'] / told['accepted'] * 1e6:.1f} µs of the listeners' CPU each"
    )
    print(
        f"then: memory {told['pss']:.1f} MB with {told['remembered']:,} sightings;"
        f"  in TIME_WAIT {_time_wait(lab)} of {_ephemeral_ports(lab):,} ephemeral ports"
    )


def _measure_runs(lab: Lab, runs: int) -> None:
    memory, waiting, opened, seconds = [], [], [], []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "profile.toml").write_text(PROFILE)
        members = [ClusterNode(name, (ADDRESSES[name],), (name,)) for name in ADDRESSES]
        shape = ClusterShape(members, profile=str(folder / "profile.toml"))
        cluster = LabCluster(lab, shape, folder=folder)
        cluster.start_agents()
        print(f"an agent before its first run: {_memory(cluster.agents[DESTINATION].pid):.1f} MB")
        for _ in range(runs):
            check = cluster.check(
                SOURCE, "--rate", "max", "--format", "json",
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            began = time.monotonic()
            report = msgspec.json.decode(check.communicate(timeout=PATIENCE)[0], type=Report)
            seconds.append(time.monotonic() - began)
            opened.append(report.summary.flows.open)
            memory.append(_memory(cluster.agents[DESTINATION].pid))
            waiting.append(_time_wait(lab))
    print(
        f"{runs} runs of check (median {statistics.median(seconds):.2f} s):"
        f"  open {min(opened):,} to {max(opened):,};"
        f"  the destination's agent after the first {memory[0]:.1f} MB,"
        f" in the middle {memory[len(memory) // 2]:.1f} MB, after the last {memory[-1]:.1f} MB;"
        f"  in TIME_WAIT at most {max(waiting)}"
    )


async def _hold() -> None:
    """The part that listens: prints a line when it is ready, and one when the sweeps are over."""
    ready = {
        "tcp": await _time_ready("tcp"),
        "udp": await _time_ready("udp"),
        "datagram": await _time_datagrams(),
    }
    listeners = _listeners()
    await listeners.hold((_listen("tcp"),))
    try:
        print(json.dumps(ready | {"pss": _memory(os.getpid())}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        thread = listeners._tcp._thread.ident if listeners._tcp else None  # noqa: SLF001 - a measurement may look inside
        cpu = time.clock_gettime(time.pthread_getcpuclockid(thread)) if thread else 0.0
        counts = listeners.confirm().counts
        answer = {
            "cpu": cpu,
            "accepted": sum(count.accepted for count in counts),
            "dropped": sum(count.dropped for count in counts),
            "remembered": len(listeners._journal._claimed),  # noqa: SLF001 - same
            "pss": _memory(os.getpid()),
        }
        print(json.dumps(answer), flush=True)
    finally:
        await listeners.release()


async def _time_ready(protocol: Protocol) -> float:
    """Seconds until the range is held, the median."""
    seconds = []
    for _ in range(READY_ROUNDS):
        listeners = _listeners()
        began = time.monotonic()
        await listeners.hold((_listen(protocol),))
        seconds.append(time.monotonic() - began)
        await listeners.release()
    return statistics.median(seconds)


async def _time_datagrams() -> float:
    """Seconds of CPU for each of a flood: sent first, so that only the reading is measured."""
    listeners = _listeners()
    await listeners.hold((structs.replace(_listen("udp"), ports=((FIRST, FIRST),)),))
    cpu = 0.0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as source:
        for _ in range(FLOODS):
            for _ in range(FLOOD):
                source.sendto(b"not ours", (ADDRESSES[DESTINATION], FIRST))
            began = time.process_time()
            for _ in range(TURNS):  # of the loop; a batch is read in each
                await asyncio.sleep(0)
            cpu += time.process_time() - began
    (count,) = listeners.confirm().counts
    await listeners.release()
    return cpu / count.accepted


async def _sweep(sweeps: int) -> None:
    """The part that probes, as an agent does."""
    probe = Probe(
        id=1,
        source=SOURCE,
        destination=DESTINATION,
        protocol="tcp",
        address=ADDRESSES[DESTINATION],
        ports=((FIRST, LAST),),
        answerers=(DESTINATION,),
    )
    found: list[Outcome] = []
    began = time.monotonic()
    for _ in range(sweeps):
        context = ProbeContext(run_id=RUN, key=KEY, share=SHARE)
        await run_probes((ProbeOrder(probe=probe),), context, found.extend, lambda _: None)
    proven = sum(count_ports(one.ports) for one in found if one.failure is None)
    print(json.dumps({"proven": proven, "seconds": time.monotonic() - began}), flush=True)


def _listeners() -> Listeners:
    return Listeners(node=DESTINATION, run_id=RUN, instance=bytes(16), key=KEY)


def _listen(protocol: Protocol) -> Listen:
    return Listen(
        node=DESTINATION, protocol=protocol, address=ADDRESSES[DESTINATION], ports=((FIRST, LAST),)
    )


def _start(lab: Lab, where: str, part: str, *options: str) -> Popen:
    argv = [sys.executable, "-m", "bench.listeners", "--part", part, *options]
    return lab.popen(where, argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _hear(process: Popen) -> dict[str, Any]:
    """The next line of a part."""
    assert process.stdout is not None
    told: dict[str, Any] = json.loads(process.stdout.readline())
    return told


def _memory(pid: int) -> float:
    """MB of a process's own, and its part of what is shared (PSS)."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def _time_wait(lab: Lab) -> int:
    """On both ends together, as `ss -s` counts them."""
    found = 0
    for where in ADDRESSES:
        counted = re.search(r"^TCP:.* tw (\d+)", _read(lab, where, "net/sockstat"), re.MULTILINE)
        assert counted is not None
        found += int(counted[1])
    return found


def _ephemeral_ports(lab: Lab) -> int:
    first, last = _read(lab, SOURCE, "sys/net/ipv4/ip_local_port_range").split()
    return int(last) - int(first) + 1


def _read(lab: Lab, where: str, file: str) -> str:
    return lab.run(where, ["cat", f"/proc/{file}"]).stdout


if __name__ == "__main__":
    main()
