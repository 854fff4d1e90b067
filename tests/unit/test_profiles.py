"""Profiles: the built-in ones against the requirements, and how profiles are merged."""

from pathlib import Path

import pytest

from preflight.config import builtin_profiles, load_profile
from preflight.config.profiles import override_ports, parse_port_sets
from preflight.config.reading import Place
from preflight.errors import ConfigError
from preflight.model.cluster import Profile
from preflight.ports import format_ports

RULE = """
[rules.{name}]
from = ["a"]
to = ["b"]
ports = ["{ports}"]
why = "because"
source = "somewhere"
"""

# Every line of the requirements document: (from, to, port).
DOCUMENT = [
    ("worker", "control-plane", "6443/tcp"),
    ("worker", "control-plane", "8285/udp"),
    ("worker", "control-plane", "8472/udp"),
    ("control-plane", "worker", "10250/tcp"),
    ("control-plane", "worker", "8285/udp"),
    ("control-plane", "worker", "8472/udp"),
    ("control-plane", "control-plane", "6443/tcp"),
    ("control-plane", "control-plane", "2379-2380/tcp"),
    ("control-plane", "control-plane", "10250/tcp"),
    ("control-plane", "control-plane", "8472/udp"),
    ("control-plane", "control-plane", "8285/udp"),
    ("control-plane", "vip", "6443/tcp"),
    ("worker", "vip", "6443/tcp"),
    ("client", "worker", "32080/tcp"),
    ("client", "worker", "30180/tcp"),
    ("client", "worker", "30080/tcp"),
    ("client", "worker", "30000-32767/tcp"),
    ("worker", "mongodb", "25080/tcp"),
    ("worker", "elasticsearch", "9200/tcp"),
]
LEFT_OUT = [
    ("worker", "worker", "8472/udp"),
    ("worker", "worker", "8285/udp"),
    ("mongodb", "mongodb", "25080/tcp"),
    ("elasticsearch", "elasticsearch", "9300/tcp"),
]
DOMAINS = {
    "archive.ubuntu.com",
    "cdn.redhat.com",
    "*.docker.com",
    "*.docker.io",
    "*.k8s.io",
    "*.amazonaws.com",
    "*.mongodb.org",
    "artifacts.elastic.co",
}


def lines(profile: Profile) -> dict[tuple[str, str, str], str]:
    """(from, to, port) -> source, for every rule."""
    return {
        (source, destination, f"{format_ports(ports.ranges)}/{ports.protocol}"): rule.source_text
        for rule in profile.rules
        for source in rule.sources
        for destination in rule.destinations
        for ports in rule.ports
    }


def ports_of(profile: Profile, name: str) -> str:
    (rule,) = [rule for rule in profile.rules if rule.name == name]
    return ",".join(f"{format_ports(one.ranges)}/{one.protocol}" for one in rule.ports)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(f'name = "{name}"\n{text}')
    return path


def test_the_built_in_profiles() -> None:
    assert builtin_profiles() == ("apinizer", "flannel", "kubernetes")


@pytest.mark.parametrize("name", ["apinizer", "flannel", "kubernetes"])
def test_every_built_in_rule_and_domain_has_a_reason_and_a_source(name: str) -> None:
    profile = load_profile(name)
    assert profile.names == (name,)
    assert profile.description
    stated = [(one.why, one.source_text) for one in profile.rules]
    stated += [(one.why, one.source_text) for one in profile.domains]
    for why, source in stated:
        assert why
        assert source.startswith(
            ("Apinizer: Access and Port Requirements, section", "not in the requirements document:")
        )


def test_apinizer_has_every_line_of_the_document_and_what_it_leaves_out_and_no_more() -> None:
    found = lines(load_profile("apinizer"))
    assert set(found) == {*DOCUMENT, *LEFT_OUT}
    for line in DOCUMENT:
        assert found[line].startswith("Apinizer: Access and Port Requirements")
    for line in LEFT_OUT:
        assert found[line].startswith("not in the requirements document: https://")


def test_apinizer_has_every_domain_of_the_document() -> None:
    assert {domain.pattern for domain in load_profile("apinizer").domains} == DOMAINS


def test_only_flannels_udp_backend_is_not_required() -> None:
    profile = load_profile("apinizer")
    assert {rule.name for rule in profile.rules if not rule.required} == {
        "flannel-udp",
        "flannel-udp-to-workers",
        "flannel-udp-between-workers",
    }


def test_a_rule_keeps_the_name_of_the_profile_that_it_comes_from() -> None:
    origin = {rule.name: rule.profile for rule in load_profile("apinizer").rules}
    assert origin["etcd"] == "kubernetes"
    assert origin["flannel-vxlan"] == "flannel"
    assert origin["mongodb"] == "apinizer"


def test_an_own_profile_extends_and_replaces(tmp_path: Path) -> None:
    write(tmp_path, "below", RULE.format(name="one", ports="1/tcp"))
    top = write(
        tmp_path,
        "top",
        'extends = ["below.toml", "flannel"]\n' + RULE.format(name="one", ports="2/udp"),
    )
    profile = load_profile(top)
    assert ports_of(profile, "one") == "2/udp"
    assert ports_of(profile, "flannel-vxlan") == "8472/udp"
    assert profile.names == ("top",)


def test_a_profile_that_is_extended_twice_does_not_undo_a_replacement(tmp_path: Path) -> None:
    write(tmp_path, "below", RULE.format(name="one", ports="1/tcp"))
    write(tmp_path, "left", 'extends = ["below.toml"]\n' + RULE.format(name="one", ports="2/tcp"))
    write(tmp_path, "right", 'extends = ["below.toml"]\n')
    top = write(tmp_path, "top", 'extends = ["left.toml", "right.toml"]\n')
    assert ports_of(load_profile(top), "one") == "2/tcp"


def test_a_circle(tmp_path: Path) -> None:
    first = write(tmp_path, "first", 'extends = ["second.toml"]\n')
    write(tmp_path, "second", 'extends = ["first.toml"]\n')
    with pytest.raises(ConfigError, match="in a circle: first -> second -> first"):
        load_profile(first)


def test_an_unknown_profile_names_the_nearest_and_all() -> None:
    with pytest.raises(ConfigError) as caught:
        load_profile("kubernets")
    assert 'did you mean "kubernetes"?' in str(caught.value)
    assert "built in: apinizer, flannel, kubernetes" in str(caught.value)
    with pytest.raises(ConfigError, match='there is no profile "'):
        load_profile("./nowhere.toml")


@pytest.mark.parametrize(
    ("wrong", "path", "message"),
    [
        ('from = ["vip"]', "rules.one.from", "sends nothing of its own"),
        ("from = []", "rules.one.from", "names no role"),
        ('from = [" "]', "rules.one.from", "empty role"),
        ('ports = ["80"]', "rules.one.ports", '"80" has no protocol: write 80/tcp or 80/udp'),
        ('ports = ["80/sctp"]', "rules.one.ports", "the protocol is tcp or udp"),
        ('ports = ["2379:2380/tcp"]', "rules.one.ports", "with a dash, 2379-2380/tcp"),
        ('ports = ["9-8/tcp"]', "rules.one.ports", "ends before it begins"),
        ('ports = ["70000/tcp"]', "rules.one.ports", "outside 1-65535"),
        ("ports = []", "rules.one.ports", "names no port"),
        ("ports = [80]", "rules.one.ports[0]", "expected a string, got an integer"),
        ('expect = "closed"', "rules.one.expect", "is not one of open, blocked"),
        ("requird = false", "rules.one.requird", 'unknown key; did you mean "required"?'),
        ("why = 3", "rules.one.why", "expected a string, got an integer"),
    ],
)
def test_a_wrong_rule(tmp_path: Path, wrong: str, path: str, message: str) -> None:
    key = wrong.split(" ", maxsplit=1)[0]
    rule = "\n".join(
        line
        for line in RULE.format(name="one", ports="1/tcp").splitlines()
        if not line.startswith(f"{key} ")
    )
    file = write(tmp_path, "wrong", f"{rule}\n{wrong}\n")
    with pytest.raises(ConfigError) as caught:
        load_profile(file)
    assert caught.value.path == path
    assert caught.value.file == str(file)
    assert message in str(caught.value)


def test_a_rule_without_a_reason(tmp_path: Path) -> None:
    file = write(tmp_path, "wrong", RULE.format(name="one", ports="1/tcp").replace("why", "# why"))
    with pytest.raises(ConfigError, match=r"rules\.one\.why: is missing"):
        load_profile(file)


def test_udp_to_a_virtual_address(tmp_path: Path) -> None:
    text = RULE.format(name="one", ports="53/udp").replace('"b"', '"vip"')
    with pytest.raises(ConfigError, match="over tcp only"):
        load_profile(write(tmp_path, "wrong", text))


@pytest.mark.parametrize(
    ("hosts", "message"),
    [("[]", "names no host"), ('["a b"]', "is not a host name"), ('["a:0"]', "outside 1-65535")],
)
def test_a_wrong_domain(tmp_path: Path, hosts: str, message: str) -> None:
    text = f'[domains."*.x.org"]\nhosts = {hosts}\nfrom = ["a"]\n'
    with pytest.raises(ConfigError, match=message) as caught:
        load_profile(write(tmp_path, "wrong", text))
    assert caught.value.path == 'domains."*.x.org".hosts'


def test_port_sets_are_one_for_each_protocol() -> None:
    sets = parse_port_sets(["53/udp", "80-81/tcp", "82/tcp"], Place("x"))
    assert [(one.protocol, one.ranges) for one in sets] == [
        ("tcp", ((80, 82),)),
        ("udp", ((53, 53),)),
    ]


def test_an_override_reaches_the_rules_about_the_same_program() -> None:
    wanted = {"mongodb": parse_port_sets(["27017/tcp"], Place("x"))}
    profile = override_ports(load_profile("apinizer"), wanted)
    assert ports_of(profile, "mongodb") == "27017/tcp"
    assert ports_of(profile, "mongodb-replication") == "27017/tcp"
    assert ports_of(profile, "elasticsearch") == "9200/tcp"


def test_an_override_leaves_other_ports_and_virtual_addresses_alone() -> None:
    wanted = {
        "elasticsearch": parse_port_sets(["9201/tcp"], Place("x")),
        "kube-apiserver": parse_port_sets(["8443/tcp"], Place("x")),
    }
    profile = override_ports(load_profile("apinizer"), wanted)
    assert ports_of(profile, "elasticsearch-transport") == "9300/tcp"
    assert ports_of(profile, "kube-apiserver") == "8443/tcp"
    assert ports_of(profile, "kube-apiserver-vip") == "6443/tcp"


def test_a_rules_own_override_comes_first() -> None:
    wanted = {
        "mongodb": parse_port_sets(["27017/tcp"], Place("x")),
        "mongodb-replication": parse_port_sets(["27018/tcp"], Place("x")),
    }
    profile = override_ports(load_profile("apinizer"), wanted)
    assert ports_of(profile, "mongodb-replication") == "27018/tcp"
