"""Names for sets of nodes, so that one line can speak of forty of them."""

from collections.abc import Collection, Mapping, Sequence

_FEW = 3
_MANY = 8
_DOERS = ("er", "or", "ent")


def listed(names: Sequence[str], most: int = 6, last: str = "and") -> str:
    """`"a, b and c"`, and `"a, b and 7 more"` where there are more than `most`."""
    if len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} more"]
    return f" {last} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def count_role(number: int, role: str) -> str:
    """`"2 workers"`, `"3 control-plane nodes"`: a role that names a doer takes a plural."""
    noun = role if role.endswith(_DOERS) else f"{role} node"
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def name_set(
    names: Sequence[str],
    nodes: Sequence[str],
    roles: Mapping[str, Sequence[str]],
    but: Collection[str] = (),
) -> str:
    """Nodes in words: whole roles by their role, the others by name, in the order given.

    `nodes` are all that there are, `roles` has those of each role. `but` is left out of the
    count: "2 other workers", where the third is the destination.
    """
    left = set(names)
    rest = [name for name in nodes if name not in but]
    if len(left) > 2 and left == set(rest):
        return f"{'all' if len(rest) == len(nodes) else 'the other'} {len(rest)} nodes"
    parts: list[str] = []
    for role, members in sorted(roles.items(), key=lambda item: -len(item[1])):
        others = [name for name in members if name not in but]
        if len(others) > 1 and left.issuperset(others):
            adjective = "other " if len(others) < len(members) else ""
            parts.append(count_role(len(others), adjective + role))
            left.difference_update(others)
        elif part := _most_of(role, members, left):
            parts.append(part)
            left.difference_update(members)
    return listed([*parts, *(name for name in names if name in left)])


def name_both(
    sources: Sequence[str],
    destinations: Sequence[str],
    nodes: Sequence[str],
    roles: Mapping[str, Sequence[str]],
) -> tuple[str, str]:
    """`("2 workers", "db1")`, `("3 control-plane nodes", "each other")`."""
    if len(sources) > 1 and set(sources) == set(destinations):
        return name_set(sources, nodes, roles), "each other"
    only_source = sources if len(sources) == 1 else ()
    only_destination = destinations if len(destinations) == 1 else ()
    return (
        name_set(sources, nodes, roles, only_destination),
        name_set(destinations, nodes, roles, only_source),
    )


def _most_of(role: str, members: Sequence[str], names: Collection[str]) -> str:
    """`"33 of 34 workers (not w7)"`, where few of many are left out; else nothing."""
    missing = [name for name in members if name not in names]
    if not 0 < len(missing) <= _FEW or len(members) < _MANY:
        return ""
    found = len(members) - len(missing)
    return f"{found} of {count_role(len(members), role)} (not {listed(missing, last='or')})"
