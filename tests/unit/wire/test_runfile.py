import pytest

from preflight.errors import PreflightError
from preflight.model.observation import AgentObservation, Failure, Outcome, Phase, Sightings
from preflight.model.plan import Limits, Plan
from preflight.wire.runfile import (
    AgentLine,
    Line,
    OutcomesLine,
    PhaseLine,
    RunLine,
    SightingsLine,
    decode_run,
    encode_line,
)

PLAN = Plan(
    run_id="0" * 32,
    cluster="prod",
    profiles=("apinizer",),
    nodes=(),
    vips=(),
    rules=(),
    flows=(),
    listens=(),
    probes=(),
    limits=Limits(),
)
OUTCOME = Outcome(probe=0, ports=((80, 81),), failure=Failure.RESET)
SIGHTINGS = Sightings(
    node="m1",
    protocol="tcp",
    address="10.0.0.1",
    ports=(80,),
    source_address="10.0.0.2",
    source_ports=(4,),
    answered=False,
)
LINES: list[Line] = [
    RunLine(version="0.1.0", started="2026-01-01T00:00:00Z", plan=PLAN),
    AgentLine(agent=AgentObservation(node="m1", state="unreachable")),
    AgentLine(agent=AgentObservation(node="m1", state="ready")),
    OutcomesLine(source="w1", outcomes=(OUTCOME,)),
    SightingsLine(node="m1", sightings=(SIGHTINGS,)),
    PhaseLine(phase=Phase(name="probe", elapsed_ms=1.5)),
]


def test_a_killed_run_gives_what_it_had_written() -> None:
    run = decode_run([encode_line(line) for line in LINES])
    assert run.plan == PLAN
    assert run.report is None
    assert run.observations.interrupted
    assert [agent.state for agent in run.observations.agents] == ["ready"]
    assert run.observations.outcomes == (OUTCOME,)
    assert run.observations.sightings == (SIGHTINGS,)
    assert run.observations.started == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_the_last_line_may_be_cut_off(cut: int) -> None:
    whole = [encode_line(line) for line in LINES]
    run = decode_run([*whole[:-1], whole[-1][:-cut]])
    assert run.observations.outcomes == (OUTCOME,)


def test_a_damaged_line_in_the_middle_is_an_error() -> None:
    whole = [encode_line(line) for line in LINES]
    whole[2] = whole[2][:20] + b"\n"
    with pytest.raises(PreflightError, match="line 3 is damaged"):
        decode_run(whole)


@pytest.mark.parametrize(
    "lines",
    [[], [b"\n"], [b"hello\n"], [b"{}\n"], [encode_line(LINES[1])], [b'{"line":"other"}\n']],
)
def test_what_is_no_run_file(lines: list[bytes]) -> None:
    with pytest.raises(PreflightError, match="not a run file"):
        decode_run(lines)


def test_two_runs_in_one_file_are_refused() -> None:
    with pytest.raises(PreflightError, match="second run"):
        decode_run([encode_line(LINES[0])] * 2)
