"""cluster.toml: what is read, and one clear error for each thing that is wrong."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from preflight.config import MAX_NODE_NAME, load_cluster
from preflight.config.addresses import read_control
from preflight.config.reading import Place
from preflight.errors import ConfigError
from preflight.model.cluster import Cluster
from preflight.wire import challenge

CLUSTER = """
name = "prod"
profile = "apinizer"
key_file = "cluster.key"

[nodes.m1]
address = "10.0.1.11"
roles = ["control-plane"]

[nodes.w1]
addresses = ["10.0.2.11", "fd00::2:11"]
roles = ["worker", "mongodb"]
control = "10.9.0.11:2222"
external = "203.0.113.7"
nat = true

[nodes.ops]
address = "10.0.9.5"
roles = ["client"]
embedded = true

[vips.api]
address = "10.0.1.10"
port = 6443
backends = "control-plane"
from = ["control-plane", "worker"]

[ports]
mongodb = "27017/tcp"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "cluster.toml"
    path.write_text(text)
    return path


def load(folder: Path, text: str) -> Cluster:
    return load_cluster(write(folder, text))[0]


def fail(folder: Path, text: str) -> ConfigError:
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load_cluster(path)
    assert caught.value.file == str(path)
    return caught.value


def test_a_whole_file(tmp_path: Path) -> None:
    cluster, profile = load_cluster(write(tmp_path, CLUSTER))
    assert cluster.name == "prod"
    assert cluster.profiles == profile.names == ("apinizer",)
    assert cluster.key_file == str(tmp_path / "cluster.key")
    m1, w1, ops = cluster.nodes
    assert (m1.name, m1.addresses, m1.roles) == ("m1", ("10.0.1.11",), ("control-plane",))
    assert (m1.control_host, m1.control_port) == ("10.0.1.11", 10888)
    assert w1.addresses == ("10.0.2.11", "fd00::2:11")
    assert (w1.control_host, w1.control_port) == ("10.9.0.11", 2222)
    assert (w1.external, w1.nat, w1.embedded) == ("203.0.113.7", True, False)
    assert ops.embedded
    (vip,) = cluster.vips
    assert (vip.name, vip.address, vip.port) == ("api", "10.0.1.10", 6443)
    assert (vip.backends, vip.sources) == ("control-plane", ("control-plane", "worker"))
    ports = {rule.name: rule.ports for rule in profile.rules}
    assert ports["mongodb"][0].ranges == ports["mongodb-replication"][0].ranges == ((27017, 27017),)


def test_a_role_that_no_node_has_is_a_warning(tmp_path: Path) -> None:
    warning, *_ = load(tmp_path, CLUSTER).warnings
    assert warning.startswith("no node has the role elasticsearch: rules elasticsearch, ")


def test_a_node_behind_nat_that_is_controlled_elsewhere_is_a_warning(tmp_path: Path) -> None:
    *_, warning = load(tmp_path, CLUSTER).warnings
    assert warning.startswith("w1 has nat = true, and its agent is reached at 10.9.0.11: ")
    here = CLUSTER.replace('control = "10.9.0.11:2222"', 'control = "10.0.2.11:2222"')
    assert here != CLUSTER
    assert not any("nat = true" in one for one in load(tmp_path, here).warnings)


def test_profiles_as_a_list_and_as_a_path_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(
        'name = "own"\n[rules.x]\nfrom = ["worker"]\nto = ["shop"]\nports = ["1/tcp"]\n'
        'why = "w"\nsource = "s"\n'
    )
    text = CLUSTER.replace('"apinizer"', '["kubernetes", "own.toml"]').replace(
        '"mongodb"]', '"shop"]'
    )
    cluster, profile = load_cluster(
        write(tmp_path, text.replace("mongodb =", "x =").replace('["client"]', '["worker"]'))
    )
    assert cluster.profiles == ("kubernetes", "own")
    assert profile.name == "kubernetes+own"
    assert "etcd" in {rule.name for rule in profile.rules}


def test_a_vips_sources_default_to_the_rules(tmp_path: Path) -> None:
    text = CLUSTER.replace('from = ["control-plane", "worker"]\n', "")
    assert load(tmp_path, text).vips[0].sources == ("control-plane", "worker")
    error = fail(
        tmp_path,
        text.replace('"apinizer"', '"flannel"')
        .replace(', "mongodb"]', "]")
        .replace('["client"]', '["worker"]')
        .replace('mongodb = "27017/tcp"', ""),
    )
    assert error.path == "vips.api.from"
    assert "is missing" in str(error)


def test_a_vips_source_without_a_node_is_an_error_only_where_nobody_is_left(
    tmp_path: Path,
) -> None:
    text = CLUSTER.replace('["control-plane", "worker"]', '["control-plane", "wroker"]')
    assert 'did you mean "worker"?' in str(fail(tmp_path, text))
    text = CLUSTER.replace('["worker", "mongodb"]', '["mongodb"]')
    assert load(tmp_path, text).vips[0].sources == ("control-plane", "worker")
    error = fail(tmp_path, text.replace('["control-plane", "worker"]', '["worker"]'))
    assert (error.path, 'no node has the role "worker"' in str(error)) == ("vips.api.from", True)


@pytest.mark.parametrize(
    ("old", "new", "path", "message"),
    [
        ('address = "10.0.1.11"', 'adress = "10.0.1.11"', "nodes.m1.adress", '"address"?'),
        ('address = "10.0.1.11"', "", "nodes.m1.address", "is missing"),
        ('address = "10.0.1.11"', 'address = "10.0.1.300"', "nodes.m1.address", "not an IP"),
        ('address = "10.0.1.11"', 'address = "10.0.1.11/24"', "nodes.m1.address", "not an IP"),
        ('address = "10.0.1.11"', 'address = "fe80::1%eth0"', "nodes.m1.address", "a zone"),
        ('address = "10.0.1.11"', 'address = "0.0.0.0"', "nodes.m1.address", "not the address of"),
        ('address = "10.0.1.11"', 'address = "ff02::1"', "nodes.m1.address", "not the address of"),
        ('address = "10.0.1.11"', 'address = "a b"', "nodes.m1.address", "neither an address nor"),
        ('address = "10.0.1.11"', 'address = "m1.lan"', "nodes.m1.address", "write an address"),
        ('address = "10.0.1.11"', "address = 10", "nodes.m1.address", "expected a string"),
        ('address = "10.0.1.11"', 'address = "10.0.2.11"', "nodes.w1.address", "already m1's"),
        ('address = "10.0.1.11"', 'address = "FD00:0::2:0011"', "nodes.w1.address", "already m1's"),
        ('address = "10.0.1.11"', 'address = "::ffff:10.0.2.11"', "nodes.w1.address", "already m1"),
        (
            'addresses = ["10.0.2.11", ',
            'addresses = ["fd00::2:11", ',
            "nodes.w1.addresses",
            "twice",
        ),
        ('addresses = ["10.0.2.11", "fd00::2:11"]', "addresses = []", "nodes.w1.addresses", "no a"),
        ("nat = true", 'nat = "yes"', "nodes.w1.nat", "expected true or false, got a string"),
        ("nat = true", 'address = "10.0.2.12"', "nodes.w1", "both address and addresses"),
        ("nat = true", "embedded = true", "nodes.w1.control", "has no control port"),
        ('"10.9.0.11:2222"', '"10.9.0.11:0"', "nodes.w1.control", "outside 1-65535"),
        ('"10.9.0.11:2222"', '"10.0.1.11:10888"', "nodes.w1.control", "already m1's"),
        ('"203.0.113.7"', '"10.0.1.11"', "nodes.w1.external", "already m1's"),
        ('roles = ["client"]', "roles = []", "nodes.ops.roles", "at least one role"),
        ('roles = ["client"]', 'roles = "client"', "nodes.ops.roles", "expected a list"),
        ('roles = ["client"]', 'roles = ["vip"]', "nodes.ops.roles", "[vips]"),
        ('roles = ["client"]', 'roles = ["cleint"]', "nodes.ops.roles", 'did you mean "client"?'),
        ("[nodes.m1]", '[nodes."m 1"]', 'nodes."m 1"', "letters, digits"),
        ("[nodes.m1]", f"[nodes.{'m' * 101}]", "nodes." + "m" * 101, "longer than 100 bytes"),
        ("[nodes.m1]", "[nodes.m1]\nembedded = true", "nodes.ops.embedded", "m1 is embedded"),
        ("[vips.api]", "[vips.m1]", "vips.m1", "a node has this name"),
        ('"10.0.1.10"', '"10.0.2.11"', "vips.api.address", "w1's own address"),
        ("port = 6443", "port = 0", "vips.api.port", "outside 1-65535"),
        ('"control-plane"\nfrom', '"control-plan"\nfrom', "vips.api.backends", '"control-plane"?'),
        ('backends = "control-plane"', "", "vips.api.backends", "is missing"),
        ("mongodb = ", "mongo = ", "ports.mongo", 'did you mean "mongodb"?'),
        ('"27017/tcp"', "27017", "ports.mongodb", "expected a string"),
        ('"27017/tcp"', '"27017"', "ports.mongodb", "write 27017/tcp or 27017/udp"),
        ('"apinizer"', '"apiniser"', "profile", 'did you mean "apinizer"?'),
        ('"apinizer"', "[]", "profile", "names no profile"),
        ('"apinizer"', "7", "profile", "expected a string or a list, got an integer"),
        ('name = "prod"', 'name = " "', "name", "is empty"),
        ('name = "prod"', 'nam = "prod"', "nam", 'unknown key; did you mean "name"?'),
        ('name = "prod"', "", "name", "is missing"),
    ],
)
def test_what_is_wrong_is_said_where_it_is(
    tmp_path: Path, old: str, new: str, path: str, message: str
) -> None:
    assert CLUSTER.count(old) >= 1
    error = fail(tmp_path, CLUSTER.replace(old, new, 1))
    assert error.path == path
    assert message in str(error)


def test_two_vips_on_one_address_and_port(tmp_path: Path) -> None:
    second = '[vips.two]\naddress = "10.0.1.10"\nport = {}\nbackends = "control-plane"\n'
    assert fail(tmp_path, CLUSTER + second.format(6443)).path == "vips.two"
    assert len(load(tmp_path, CLUSTER + second.format(443)).vips) == 2


def test_no_nodes(tmp_path: Path) -> None:
    assert fail(tmp_path, 'name = "x"\nprofile = "flannel"\n[nodes]\n').path == "nodes"


def test_a_syntax_error_has_its_line(tmp_path: Path) -> None:
    assert "is not valid TOML" in str(fail(tmp_path, 'name = "x"\nprofile\n'))
    assert "line 2" in str(fail(tmp_path, 'name = "x"\nprofile\n'))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        load_cluster(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_cluster(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load_cluster(tmp_path / "binary.toml")
    with pytest.raises(ConfigError, match="is larger than 4 MiB"):
        load_cluster(Path("/dev/zero"))


def test_names_are_resolved_by_the_resolver_that_is_passed(tmp_path: Path) -> None:
    known = {"m1.lan": ["10.0.1.11", "fd00::1:11"], "jump.lan": "10.9.9.9"}

    def resolve(name: str) -> str | Sequence[str]:
        if name not in known:
            raise OSError(-2, "Name or service not known")
        return known[name]

    text = CLUSTER.replace('"10.0.1.11"', '"m1.lan"\ncontrol = "jump.lan:99"')
    node = load_cluster(write(tmp_path, text), resolve=resolve)[0].nodes[0]
    assert node.addresses == ("10.0.1.11", "fd00::1:11")
    assert (node.control_host, node.control_port) == ("10.9.9.9", 99)
    with pytest.raises(ConfigError, match="could not be resolved: Name or service") as caught:
        load_cluster(write(tmp_path, text.replace("m1.lan", "m2.lan")), resolve=resolve)
    assert caught.value.path == "nodes.m1.address"
    with pytest.raises(ConfigError, match="has several addresses"):
        load_cluster(write(tmp_path, CLUSTER.replace("10.0.1.10", "m1.lan")), resolve=resolve)
    with pytest.raises(ConfigError, match="has no address"):
        load_cluster(write(tmp_path, text), resolve=lambda _: [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1", ("10.0.0.1", 10888)),
        ("10.0.0.1:22", ("10.0.0.1", 22)),
        ("[fd00::1]:22", ("fd00::1", 22)),
        ("[fd00::1]", ("fd00::1", 10888)),
        ("fd00::1", ("fd00::1", 10888)),
    ],
)
def test_control_addresses(text: str, expected: tuple[str, int]) -> None:
    assert read_control(text, lambda _: (), Place("x")) == expected


@pytest.mark.parametrize(
    "text", ["10.0.0.1:", "10.0.0.1:1-2", "[fd00::1", "[fd00::1]x", "10.0.0.1:1,5", "", ":22"]
)
def test_wrong_control_addresses(text: str) -> None:
    with pytest.raises(ConfigError):
        read_control(text, lambda _: (), Place("x"))


def test_a_name_that_is_allowed_fits_into_an_answer() -> None:
    assert MAX_NODE_NAME <= challenge.MAX_NODE_NAME


@pytest.mark.parametrize(
    ("old", "new", "path", "others"),
    [
        ("[nodes.m1]", "[nodes.worker]", "nodes.worker", "w1"),
        ("[nodes.m1]", "[nodes.vip]", "nodes.vip", "api"),
        ("[vips.api]", "[vips.client]", "vips.client", "ops"),
    ],
)
def test_a_name_that_is_the_word_for_others(
    tmp_path: Path, old: str, new: str, path: str, others: str
) -> None:
    error = fail(tmp_path, CLUSTER.replace(old, new))
    assert error.path == path
    assert f"stands for {others} too" in str(error)


def test_the_only_node_with_a_role_may_be_called_by_it(tmp_path: Path) -> None:
    cluster = load(tmp_path, CLUSTER.replace("[nodes.w1]", "[nodes.worker]"))
    assert [node.name for node in cluster.nodes] == ["m1", "worker", "ops"]
    load(tmp_path, CLUSTER.replace("[vips.api]", "[vips.vip]"))


def test_a_loopback_address_in_a_real_cluster_is_a_warning(tmp_path: Path) -> None:
    said = "address 127.0.0.1 is a loopback address, at which every machine reaches itself"
    for address, name in (("10.0.1.11", "m1"), ("10.0.1.10", "api")):
        text = CLUSTER.replace(f'address = "{address}"', 'address = "127.0.0.1"')
        assert f"{name}'s {said}" in load(tmp_path, text).warnings


def test_a_cluster_on_one_machine_is_no_warning(tmp_path: Path) -> None:
    text = 'name = "c"\nprofile = "kubernetes"\n' + "".join(
        f'[nodes.{name}]\naddress = "127.77.0.{place}"\nroles = ["{role}"]\n'
        for place, (name, role) in enumerate((("m1", "control-plane"), ("w1", "worker")), start=1)
    )
    assert not load(tmp_path, text).warnings


def test_a_file_that_begins_with_a_byte_order_mark(tmp_path: Path) -> None:
    assert load(tmp_path, f"\ufeff{CLUSTER}").name == "prod"
