"""Sets of port numbers as sorted, disjoint ranges: `((2379, 2380), (6443, 6443))`.

Everything that concerns ports travels in this form, from the profile to the report, so
that the 2,768 NodePorts of a pair are one small value and not 2,768 objects.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TypeAlias

Ranges: TypeAlias = tuple[tuple[int, int], ...]

FIRST_PORT = 1
LAST_PORT = 65_535


def parse_ports(text: str) -> Ranges:
    """Read `"6443"`, `"2379-2380"` or `"80,443,8000-8010"`.

    Raises `ValueError`, with a sentence for the user, for anything else.
    """
    numbers: list[tuple[int, int]] = []
    for part in text.split(","):
        first_text, dash, last_text = part.strip().partition("-")
        first = _parse_port(first_text, text)
        last = _parse_port(last_text, text) if dash else first
        if last < first:
            raise ValueError(f"port range {part.strip()!r} ends before it begins")
        numbers.append((first, last))
    return normalise(numbers)


def _parse_port(text: str, whole: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{whole!r} is not a port or a range of ports")
    port = int(text)
    if not FIRST_PORT <= port <= LAST_PORT:
        raise ValueError(f"port {text} is outside {FIRST_PORT}-{LAST_PORT}")
    return port


def format_ports(ranges: Ranges) -> str:
    """Write ranges as `parse_ports` reads them: `"30000-30079,30081-32767"`."""
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def normalise(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Sort, and join what overlaps or touches."""
    in_order = sorted(ranges)
    if len(in_order) <= 1:
        return tuple(in_order)
    merged: list[tuple[int, int]] = []
    begin, end = in_order[0]
    for first, last in in_order:
        if first > end + 1:
            merged.append((begin, end))
            begin, end = first, last
        elif last > end:
            end = last
    merged.append((begin, end))
    return tuple(merged)


def from_ports(ports: Iterable[int]) -> Ranges:
    """Ranges that hold exactly these ports."""
    return normalise((port, port) for port in ports)


def each_port(ranges: Ranges) -> Iterator[int]:
    """Every port, in ascending order."""
    for first, last in ranges:
        yield from range(first, last + 1)


def count_ports(ranges: Ranges) -> int:
    """How many ports the ranges hold."""
    return sum(last - first + 1 for first, last in ranges)


def spread(ranges: Ranges, wanted: int) -> Ranges:
    """At most so many of the ports, from all over the ranges, the first and the last included."""
    count = count_ports(ranges)
    if count <= wanted:
        return ranges
    if wanted <= 0:
        return ()
    step = (count - 1) / max(1, wanted - 1)
    places = {round(index * step) for index in range(wanted)}
    return from_ports(port for place, port in enumerate(each_port(ranges)) if place in places)


def union(*many: Ranges) -> Ranges:
    """The ports that are in any of them."""
    return normalise(chain.from_iterable(many))


def intersect(left: Ranges, right: Ranges) -> Ranges:
    """The ports that are in both."""
    return tuple(_common(left, right))


def overlap(left: Ranges, right: Ranges) -> bool:
    """Whether any port is in both."""
    return next(_common(left, right), None) is not None


def _common(left: Ranges, right: Ranges) -> Iterator[tuple[int, int]]:
    lefts, rights = iter(left), iter(right)
    try:
        first, last = next(lefts)
        begin, end = next(rights)
        while True:
            if first <= end and begin <= last:
                yield max(first, begin), min(last, end)
            if last < end:
                first, last = next(lefts)
            else:
                begin, end = next(rights)
    except StopIteration:
        return


def subtract(left: Ranges, right: Ranges) -> Ranges:
    """The ports of `left` that are not in `right`."""
    remaining: list[tuple[int, int]] = []
    gaps = iter(right)
    gap = next(gaps, None)
    for first, last in left:
        begin = first
        while gap is not None and gap[0] <= last:
            if gap[0] > begin:
                remaining.append((begin, gap[0] - 1))
            begin = max(begin, gap[1] + 1)
            if gap[1] > last:
                break  # it reaches into what follows
            gap = next(gaps, None)
        if begin <= last:
            remaining.append((begin, last))
    return tuple(remaining)
