import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflight import ports

numbers = st.sets(st.integers(1, 300), max_size=60)


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("6443", ((6443, 6443),)),
        ("2379-2380", ((2379, 2380),)),
        ("443, 80,8000-8010", ((80, 80), (443, 443), (8000, 8010))),
        ("1-5,6-9", ((1, 9),)),
        ("65535", ((65535, 65535),)),
    ],
)
def test_parse(text: str, ranges: ports.Ranges) -> None:
    assert ports.parse_ports(text) == ranges


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is not a port"),
        ("http", "is not a port"),
        ("80-", "is not a port"),
        ("-80", "is not a port"),
        ("١٢", "is not a port"),
        ("0", "outside 1-65535"),
        ("70000", "outside 1-65535"),
        ("90-80", "ends before it begins"),
    ],
)
def test_parse_says_what_is_wrong(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ports.parse_ports(text)


@given(numbers)
def test_text_form_round_trip(found: set[int]) -> None:
    ranges = ports.from_ports(found)
    assert list(ports.each_port(ranges)) == sorted(found)
    assert ports.count_ports(ranges) == len(found)
    if found:
        assert ports.parse_ports(ports.format_ports(ranges)) == ranges


@given(numbers, numbers)
def test_ranges_are_sets(left: set[int], right: set[int]) -> None:
    a, b = ports.from_ports(left), ports.from_ports(right)
    assert ports.union(a, b) == ports.from_ports(left | right)
    assert ports.intersect(a, b) == ports.from_ports(left & right)
    assert ports.subtract(a, b) == ports.from_ports(left - right)
    assert ports.overlap(a, b) == bool(left & right)
