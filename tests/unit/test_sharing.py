"""A run's bounds shared out: nobody gets nothing, and all together never more than there is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflight.model.plan import Limits
from preflight.planning.sharing import (
    MOST_ATTEMPTS,
    TRIES_OF_A_LOOK,
    first_pass_half_open,
    most_looks,
    share_half_open,
    share_rate,
)

WORK = st.dictionaries(st.text(min_size=1, max_size=3), st.integers(1, 300_000), min_size=1)


@given(work=WORK, more=st.integers(0, 100_000))
def test_parts_of_the_half_open_bound(work: dict[str, int], more: int) -> None:
    bound = len(work) + more
    parts = share_half_open(bound, work)
    assert parts.keys() == work.keys()
    assert sum(parts.values()) <= bound
    for source, part in parts.items():
        assert 1 <= part <= MOST_ATTEMPTS * work[source]


@given(work=WORK, rate=st.floats(1.0, 1e6))
def test_parts_of_the_rate(work: dict[str, int], rate: float) -> None:
    parts = share_rate(rate, work)
    assert sum(part or 0.0 for part in parts.values()) == pytest.approx(rate)
    # Nobody waits longer than a tenth more than with its exact part.
    for source, part in parts.items():
        assert part is not None
        assert part >= 0.9 * rate * work[source] / sum(work.values()) * (1 - 1e-9)


def test_no_rate_is_no_limit_for_anybody() -> None:
    assert share_rate(None, {"a": 1, "b": 2}) == {"a": None, "b": None}


def test_a_few_flows_do_not_wait_behind_a_range() -> None:
    parts = share_rate(5_000.0, {"few": 20, "range": 100_000})
    assert parts == {"few": 50.0, "range": 4_950.0}


@given(bound=st.integers(2, 100_000), rate=st.one_of(st.none(), st.floats(1.0, 1e6)))
def test_both_passes_together_keep_to_the_bound(bound: int, rate: float | None) -> None:
    limits = Limits(max_half_open=bound, rate=rate)
    again = TRIES_OF_A_LOOK * most_looks(limits)
    assert first_pass_half_open(limits) + again <= bound
    if rate is not None:
        assert again <= rate * limits.second_look
