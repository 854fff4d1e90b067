from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflight.render.naming import Box, Names, boxes
from tests.unit.render.samples import clean, forty

ANY_PAIRS = st.sets(st.tuples(st.sampled_from("abcde"), st.sampled_from("abcde"))).map(
    lambda pairs: {(source, destination) for source, destination in pairs if source != destination}
)


@given(ANY_PAIRS)
def test_boxes_hold_exactly_the_pairs_and_each_once(pairs: set[tuple[str, str]]) -> None:
    held = [
        pair
        for box in boxes(pairs)
        for pair in product(box.sources, box.destinations)
        if pair[0] != pair[1]
    ]
    assert sorted(held) == sorted(pairs)


def test_all_to_all_is_one_box() -> None:
    pairs = {(one, other) for one in "abc" for other in "abc" if one != other}
    assert boxes(pairs) == [Box(frozenset("abc"), frozenset("abc"))]


@pytest.mark.parametrize(
    ("sources", "destinations", "words"),
    [
        ({"w1", "w2"}, {"db1"}, "2 workers → db1"),
        ({"w1"}, {"db1", "es1"}, "w1 → db1 and es1"),
        ({"m2", "m3"}, {"m1"}, "2 other control-plane nodes → m1"),
        ({"m1", "m2", "m3"}, {"m1", "m2", "m3"}, "3 control-plane nodes → each other"),
        ({"m1", "m2", "m3", "w2"}, {"api"}, "3 control-plane nodes and w2 → api"),
        ({"m1", "m2", "m3", "w2", "db1", "es1", "ops"}, {"w1"}, "the other 7 nodes → w1"),
    ],
)
def test_who(sources: set[str], destinations: set[str], words: str) -> None:
    assert Names(clean()).both(Box(frozenset(sources), frozenset(destinations))) == words


def test_most_of_a_large_role_is_named_by_who_is_left_out() -> None:
    names = Names(forty())
    most = [name for name in names.roles["worker"] if name not in ("w7", "w9")]
    assert names.of(most) == "32 of 34 workers (not w7 or w9)"
    assert names.of(["w1", "w2", "w7"]) == "w1, w2 and w7"
