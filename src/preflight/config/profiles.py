"""Profiles: which role needs which ports of which other, and why.

A profile is a TOML file. `extends` names others, built-in ones by name and own ones by a path
relative to the file. All are merged in order, what is extended first, each file once; a rule
or a domain that comes later replaces the one of the same name.
"""

from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from msgspec import structs

from preflight.config.addresses import is_host_name
from preflight.config.documents import DomainTable, ProfileDocument, RuleTable
from preflight.config.reading import Place, convert, listing, nearest, read_toml
from preflight.model.cluster import VIP_ROLE, Domain, PortSet, Profile, Protocol, Rule
from preflight.ports import Ranges, parse_ports, union

_PROTOCOLS: tuple[Protocol, ...] = ("tcp", "udp")


def builtin_profiles() -> tuple[str, ...]:
    """The names of the profiles that come with preflight, sorted."""
    return tuple(sorted(path.stem for path in _builtin_folder().glob("*.toml")))


def load_profile(name_or_path: str | Path) -> Profile:
    """A built-in profile by its name, or one of the user's by its path, with all it extends.

    What holds a slash or ends in `.toml` is a path. Raises `ConfigError`.
    """
    return load_profiles((str(name_or_path),), Path(), Place(""))


def load_profiles(names: tuple[str, ...], folder: Path, place: Place) -> Profile:
    """Several profiles as one. `folder` is what paths are relative to, `place` who asks."""
    if not names:
        raise place.error("names no profile")
    merging = _Merging()
    tops = [merging.add(name, folder, place) for name in names]
    return Profile(
        name="+".join(top.name for top in tops),
        names=tuple(top.name for top in tops),
        rules=tuple(merging.rules.values()),
        domains=tuple(merging.domains.values()),
        description=" ".join(top.description for top in tops if top.description),
    )


class _Merging:
    """Profiles read so far, and the rules and domains of all of them."""

    def __init__(self) -> None:
        self.rules: dict[str, Rule] = {}
        self.domains: dict[str, Domain] = {}
        self._read: dict[Path, ProfileDocument] = {}
        self._open: list[Path] = []

    def add(self, name: str, folder: Path, asked_by: Place) -> ProfileDocument:
        """Merge one profile, after all that it extends."""
        path = _find(name, folder, asked_by)
        if path in self._open:
            around = " -> ".join(one.stem for one in (*self._open, path))
            raise asked_by.error(f"profiles extend each other in a circle: {around}")
        if path in self._read:
            return self._read[path]
        place = Place(str(path))
        document = convert(read_toml(path), ProfileDocument, place)
        self._open.append(path)
        for extended in document.extends:
            self.add(extended, path.parent, place / "extends")
        self._open.pop()
        self._read[path] = document
        for key, table in document.rules.items():
            self.rules[key] = _read_rule(key, table, document.name, place / "rules" / key)
        for key, table in document.domains.items():
            self.domains[key] = _read_domain(key, table, document.name, place / "domains" / key)
        return document


def parse_port_sets(texts: Iterable[str], place: Place) -> tuple[PortSet, ...]:
    """`["2379-2380/tcp", "8472/udp"]` -> one set for each protocol. Raises `ConfigError`."""
    found: dict[Protocol, Ranges] = {}
    for text in texts:
        ports, slash, suffix = text.partition("/")
        if not slash:
            raise place.error(f'"{text}" has no protocol: write {text}/tcp or {text}/udp')
        protocol = next((known for known in _PROTOCOLS if known == suffix), None)
        if protocol is None:
            raise place.error(f'"{text}": the protocol is tcp or udp')
        if ":" in ports:
            raise place.error(f'"{text}": write a range with a dash, {text.replace(":", "-")}')
        try:
            found[protocol] = union(found.get(protocol, ()), parse_ports(ports))
        except ValueError as error:
            raise place.error(str(error)) from None
    if not found:
        raise place.error("names no port")
    return tuple(PortSet(protocol, found[protocol]) for protocol in _PROTOCOLS if protocol in found)


def override_ports(profile: Profile, wanted: dict[str, tuple[PortSet, ...]]) -> Profile:
    """The profile with other ports on some rules, by the rules' names.

    An override also reaches the rules whose names continue with a dash (`mongodb-replication`
    after `mongodb`) where they had the very same ports: they are about the same listening
    program. Naming such a rule itself overrides it by its own name. Rules about VIPs have the
    VIP's port, and are reached by their own name only.
    """
    before = {rule.name: rule.ports for rule in profile.rules}

    def ports_of(rule: Rule) -> tuple[PortSet, ...]:
        if rule.name in wanted:
            return wanted[rule.name]
        if VIP_ROLE not in rule.destinations:
            for name, ports in wanted.items():
                if rule.name.startswith(f"{name}-") and rule.ports == before[name]:
                    return ports
        return rule.ports

    rules = tuple(structs.replace(rule, ports=ports_of(rule)) for rule in profile.rules)
    return structs.replace(profile, rules=rules)


def _find(name: str, folder: Path, asked_by: Place) -> Path:
    """The file of a profile, resolved, so that one file has one path."""
    if "/" in name or name.endswith(".toml"):
        path = (folder / name).resolve()
        if not path.is_file():
            raise asked_by.error(f'there is no profile "{path}"')
        return path
    known = builtin_profiles()
    if name not in known:
        raise asked_by.error(
            f'unknown profile "{name}"{nearest(name, known)} (built in: {listing(known)}; '
            "a path to an own one ends in .toml)"
        )
    return (_builtin_folder() / f"{name}.toml").resolve()


def _builtin_folder() -> Path:
    """Inside the installed package, or at the top of the checkout for an editable install."""
    installed = Path(str(resources.files("preflight"))) / "profiles"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[3] / "profiles"


def _read_rule(name: str, value: object, profile: str, place: Place) -> Rule:
    table = convert(value, RuleTable, place)
    for key, roles in (("from", table.sources), ("to", table.destinations)):
        _check_roles(roles, place / key)
    if VIP_ROLE in table.sources:
        raise (place / "from").error("a virtual address sends nothing of its own")
    ports = parse_port_sets(table.ports, place / "ports")
    if VIP_ROLE in table.destinations and any(one.protocol != "tcp" for one in ports):
        raise (place / "ports").error("virtual addresses are checked over tcp only")
    return Rule(
        name=name,
        sources=table.sources,
        destinations=table.destinations,
        ports=ports,
        why=table.why,
        source_text=table.source,
        profile=profile,
        required=table.required,
        expected=table.expect,
        via=table.via,
    )


def _read_domain(pattern: str, value: object, profile: str, place: Place) -> Domain:
    table = convert(value, DomainTable, place)
    _check_roles(table.sources, place / "from")
    if not table.hosts:
        raise (place / "hosts").error("names no host")
    for host in table.hosts:
        _check_host(host, place / "hosts")
    return Domain(
        pattern=pattern,
        hosts=table.hosts,
        sources=table.sources,
        why=table.why,
        source_text=table.source,
        profile=profile,
    )


def _check_roles(roles: tuple[str, ...], place: Place) -> None:
    if not roles:
        raise place.error("names no role")
    for role in roles:
        if not role.strip():
            raise place.error("has an empty role")


def _check_host(text: str, place: Place) -> None:
    host, colon, port = text.partition(":")
    try:
        if colon:
            parse_ports(port)
    except ValueError as error:
        raise place.error(str(error)) from None
    if not is_host_name(host):
        raise place.error(f'"{text}" is not a host name, or a host name with a port')
