"""One cause, one line: records that one fix would cure, told together."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from preflight.diagnosis.naming import listed, name_both, name_set
from preflight.model.cluster import Protocol
from preflight.model.plan import Family, Plan
from preflight.model.report import Cause, FlowRecord, Verdict, Where
from preflight.ports import Ranges, count_ports, format_ports, parse_ports, union

_LONG = 48
"""Characters of a list of ports that somebody still reads."""
_MANY = 6
"""From this many names on, the rest is a number."""
_OWN_ENDS = frozenset({Where.SOURCE_EGRESS, Where.DESTINATION_HOST})


class Trouble(Struct, frozen=True, kw_only=True):
    """What records must have in common to be one line, but for their ends and ports."""

    protocol: Protocol
    verdict: Verdict
    cause: Cause | None
    where: Where | None
    reporter: str | None
    """Null where each end reports itself: else every node would have a line of its own."""
    answered_by: str | None
    required: bool
    expected: str


class Group(Struct, frozen=True, kw_only=True):
    """Records of one trouble, from all these sources to all these destinations."""

    trouble: Trouble
    sources: tuple[str, ...]
    destinations: tuple[str, ...]
    families: tuple[Family, ...]
    ports: Ranges
    flows: tuple[int, ...]


class _Asked(Struct, frozen=True):
    """What pairs must have in common to be in one group."""

    families: tuple[Family, ...]
    ports: Ranges


def group_records(records: Sequence[FlowRecord], chosen: Iterable[int]) -> list[Group]:
    """Group the chosen records (indexes), in the order in which their first ones stand."""
    pairs: dict[Trouble, dict[tuple[str, str], list[int]]] = defaultdict(lambda: defaultdict(list))
    for number in chosen:
        record = records[number]
        pairs[_trouble_of(record)][record.source, record.destination].append(number)
    groups: list[Group] = []
    for trouble, by_pair in pairs.items():
        same: dict[_Asked, dict[tuple[str, str], list[int]]] = defaultdict(dict)
        for pair, numbers in by_pair.items():
            for asked, ours in _asked(records, numbers):
                same[asked][pair] = ours
        for asked, alike in same.items():
            groups += _blocks(trouble, asked, alike)
    return sorted(groups, key=lambda group: group.flows)


def describe(group: Group, plan: Plan) -> str:
    """`2 workers -> db1 25080/tcp`: the words of the table."""
    alone = _is_dual(plan) and len(group.families) == 1
    suffix = f" over IPv{group.families[0]}" if alone else ""
    sources, destinations = name_both(
        group.sources, group.destinations, [node.name for node in plan.nodes], _roles_of(plan)
    )
    return (
        f"{sources} -> {destinations} {short_ports(group.ports)}/{group.trouble.protocol}{suffix}"
    )


def name_nodes(names: Sequence[str], plan: Plan) -> str:
    """`w1`, or several by the roles that they have: `2 workers`, `m1 and m2`."""
    return name_set(names, [node.name for node in plan.nodes], _roles_of(plan))


def short_ports(ranges: Ranges) -> str:
    """The ports, or how many they are where the list would not be read. Records have them all."""
    text = format_ports(ranges)
    if len(text) <= _LONG:
        return text
    return f"{count_ports(ranges)} ports within {ranges[0][0]}-{ranges[-1][1]}"


def list_nodes(names: Sequence[str], plan: Plan) -> str:
    """`w1 (10.0.2.11), w2 (10.0.2.12)`: for a sentence that somebody will act on."""
    addresses: dict[str, Sequence[str]] = {node.name: node.addresses for node in plan.nodes}
    addresses |= {vip.name: (vip.address,) for vip in plan.vips}
    return _list_places(names, addresses)


def list_ends(group: Group, records: Sequence[FlowRecord]) -> tuple[str, str]:
    """Sources and destinations as `list_nodes` has them, with the addresses of these flows only.

    What works over the other family needs no rule.
    """
    addresses: dict[str, dict[str, None]] = defaultdict(dict)
    for number in group.flows:
        record = records[number]
        addresses[record.source][record.source_address] = None
        addresses[record.destination][record.destination_address] = None
    places = {name: tuple(found) for name, found in addresses.items()}
    return _list_places(group.sources, places), _list_places(group.destinations, places)


def _list_places(names: Sequence[str], addresses: Mapping[str, Sequence[str]]) -> str:
    shown = [f"{name} ({listed(addresses.get(name, ('?',)))})" for name in names[:_MANY]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _asked(
    records: Sequence[FlowRecord], numbers: Iterable[int]
) -> Iterator[tuple[_Asked, list[int]]]:
    """The records of one pair, by what is asked: families with the same ports together."""
    by_family: dict[Family, list[int]] = defaultdict(list)
    for number in numbers:
        by_family[records[number].family].append(number)
    alike: dict[Ranges, list[Family]] = defaultdict(list)
    for family, ours in sorted(by_family.items()):
        alike[union(*(parse_ports(records[number].ports) for number in ours))].append(family)
    for ports, families in alike.items():
        ours = [number for family in families for number in by_family[family]]
        yield _Asked(tuple(families), ports), ours


def _roles_of(plan: Plan) -> dict[str, list[str]]:
    roles: dict[str, list[str]] = defaultdict(list)
    for node in plan.nodes:
        for role in node.roles:
            roles[role].append(node.name)
    return roles


def _trouble_of(record: FlowRecord) -> Trouble:
    return Trouble(
        protocol=record.protocol,
        verdict=record.verdict,
        cause=record.cause,
        where=record.where,
        reporter=None if record.where in _OWN_ENDS else record.reported_by,
        answered_by=record.evidence.answered_by,
        required=record.required,
        expected=record.expected,
    )


def _blocks(
    trouble: Trouble, asked: _Asked, pairs: dict[tuple[str, str], list[int]]
) -> list[Group]:
    """Cut pairs into blocks in which every source is paired with every destination."""
    sources = tuple(dict.fromkeys(source for source, _ in pairs))
    destinations = tuple(dict.fromkeys(destination for _, destination in pairs))
    if len(pairs) == sum(a != b for a in sources for b in destinations):
        return [_group(trouble, asked, sources, destinations, pairs)]
    towards: dict[str, list[str]] = defaultdict(list)
    for source, destination in pairs:
        towards[destination].append(source)
    blocks: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for destination, found in towards.items():
        blocks[tuple(found)].append(destination)
    return [_group(trouble, asked, a, tuple(b), pairs) for a, b in blocks.items()]


def _group(
    trouble: Trouble,
    asked: _Asked,
    sources: tuple[str, ...],
    destinations: tuple[str, ...],
    pairs: dict[tuple[str, str], list[int]],
) -> Group:
    numbers = (pairs.get((a, b), []) for a in sources for b in destinations)
    return Group(
        trouble=trouble,
        sources=sources,
        destinations=destinations,
        families=asked.families,
        ports=asked.ports,
        flows=tuple(sorted(number for found in numbers for number in found)),
    )


def _is_dual(plan: Plan) -> bool:
    return len({flow.family for flow in plan.flows}) > 1
