import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflight.errors import WireError
from preflight.model.observation import Attempts, Confirmation, Outcome, Sightings
from preflight.wire import messages
from preflight.wire.messages import Ask, Beat, Greet, Progress, Results, Seen

GREET = Greet(
    wire_version=1, version="0.1", run_id="0" * 32, coordinator="me", node="m1", addresses=("::1",)
)


@pytest.mark.parametrize("message", [GREET, Ask(probe_ids=("a", "b")), Beat()])
def test_round_trip(message: messages.ToAgent) -> None:
    data = messages.encode_message(message)
    assert messages.check_length(data[:4]) == len(data) - 4
    assert messages.decode_for_agent(data[4:]) == message


@given(st.binary(max_size=200))
def test_any_bytes_give_a_message_or_one_error(data: bytes) -> None:
    for decode in (messages.decode_for_agent, messages.decode_for_coordinator):
        with contextlib.suppress(WireError):
            decode(data)


def test_a_message_of_the_other_direction_is_refused() -> None:
    body = messages.encode_message(Progress(finished=3))[4:]
    with pytest.raises(WireError):
        messages.decode_for_agent(body)


def test_length_is_bounded() -> None:
    with pytest.raises(WireError, match="limit"):
        messages.check_length((messages.MAX_MESSAGE + 1).to_bytes(4, "big"))


def probe_ids(count: int) -> tuple[str, ...]:
    return tuple(f"{number:032x}" for number in range(count))


def test_results_of_stalled_ranges_fit_into_a_message() -> None:
    attempts = Attempts(
        probe_ids=probe_ids(9_000), ports=(32_767,) * 9_000, local_ports=(65_535,) * 9_000
    )
    ranges = tuple((port, port) for port in range(30_000, 32_768, 2))
    outcome = Outcome(probe=1, ports=ranges, failure=None, unanswered=(attempts,))
    one = len(messages.encode_message(Results(outcomes=(outcome,))))
    assert one * messages.OUTCOMES_AT_ONCE < messages.MAX_MESSAGE


def test_question_and_answer_fit_into_a_message() -> None:
    ids = probe_ids(messages.IDS_AT_ONCE)
    seen = Sightings(
        node="m1", protocol="tcp", address="10.0.0.1", source_address="10.0.0.2", answered=True,
        ports=(32_767,) * len(ids), source_ports=(65_535,) * len(ids), probe_ids=ids,
    )  # fmt: skip
    answer = Seen(sightings=(seen,), confirmation=Confirmation(instance="ab", held=()))
    assert len(messages.encode_message(Ask(probe_ids=ids))) < messages.MAX_MESSAGE
    assert len(messages.encode_message(answer)) < messages.MAX_MESSAGE


def test_too_long_a_message_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MAX_MESSAGE", 10)
    with pytest.raises(WireError, match="over the limit"):
        messages.encode_message(GREET)
