"""Key files, and what TLS makes of them: real handshakes, in memory."""

import os
import ssl
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from preflight.errors import KeyFileError
from preflight.net.certificates import make_ca
from preflight.net.keys import (
    AgentKey,
    CoordinatorKey,
    _is_given_by_root,
    agent_key_path,
    load_agent_key,
    load_coordinator_key,
    write_keys,
)
from preflight.net.tls import agent_context, coordinator_context


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return write_keys(tmp_path / "cluster.key")


def handshake(near: ssl.SSLContext, far: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both sides of a TLS connection over memory, until both have sent and read one message."""
    to_far, to_near = ssl.MemoryBIO(), ssl.MemoryBIO()
    caller = near.wrap_bio(to_near, to_far, server_side=False)
    called = far.wrap_bio(to_far, to_near, server_side=True)
    steps = {caller: caller.do_handshake, called: called.do_handshake}
    for _ in range(10):
        for side, step in list(steps.items()):
            try:
                step()
            except ssl.SSLWantReadError:
                continue
            del steps[side]
    assert not steps
    # With TLS 1.3 the caller learns of a refusal only when it reads.
    called.write(b"hello")
    assert caller.read(5) == b"hello"
    return caller, called


def test_both_files_are_private_and_say_in_words_which_they_are(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    assert files == (tmp_path / "cluster.key", tmp_path / "cluster.agent.key")
    assert [one.stat().st_mode & 0o777 for one in files] == [0o600, 0o600]
    assert files[0].read_text().startswith("preflight coordinator key: ")
    assert files[1].read_text().startswith("preflight agent key: ")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["cluster.agent.key", "cluster.key"]


def test_the_agents_file_does_not_hold_the_ca_key(files: tuple[Path, Path]) -> None:
    blocks = files[0].read_text().split("-----BEGIN PRIVATE KEY-----")
    secret = blocks[1].split("-----END")[0].strip()
    assert len(secret) > 100
    assert secret not in files[1].read_text()


def test_both_have_one_mac_key_and_one_ca(files: tuple[Path, Path]) -> None:
    coordinator, agent = load_coordinator_key(files[0]), load_agent_key(files[1])
    assert isinstance(coordinator, CoordinatorKey)
    assert isinstance(agent, AgentKey)
    assert coordinator.mac_key == agent.mac_key
    assert len(agent.mac_key) == 32
    assert coordinator.ca_pem == agent.ca_pem
    assert coordinator.warnings == agent.warnings == ()


def test_no_secret_in_a_repr(files: tuple[Path, Path]) -> None:
    key = load_agent_key(files[1])
    assert repr(key) == f"{key}" == "<AgentKey>"


@pytest.mark.parametrize("taken", ["cluster.key", "cluster.agent.key"])
def test_nothing_is_overwritten_and_then_nothing_is_written(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("precious")
    with pytest.raises(KeyFileError, match=f"{taken} exists and is not overwritten"):
        write_keys(tmp_path / "cluster.key")
    assert [one.name for one in tmp_path.iterdir()] == [taken]
    assert (tmp_path / taken).read_text() == "precious"


def test_force_makes_new_keys_with_mode_0600(files: tuple[Path, Path]) -> None:
    before = load_agent_key(files[1])
    files[1].chmod(0o644)
    write_keys(files[0], force=True)
    after = load_agent_key(files[1])
    assert after.mac_key != before.mac_key
    assert after.warnings == ()
    assert files[1].stat().st_mode & 0o777 == 0o600


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="cannot be written: No such file"):
        write_keys(tmp_path / "missing" / "cluster.key")


def test_the_agents_name_is_derived() -> None:
    assert agent_key_path(Path("a/my.cluster.key")) == Path("a/my.cluster.agent.key")
    assert agent_key_path(Path("prod")) == Path("prod.agent.key")
    with pytest.raises(KeyFileError, match="a name for the agents' file"):
        write_keys(Path("cluster.agent.key"))


def test_a_missing_file_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"`preflight key --out .*cluster\.key` makes one"):
        load_coordinator_key(tmp_path / "cluster.key")
    with pytest.raises(KeyFileError, match="copy that one to every node"):
        load_agent_key(tmp_path / "cluster.agent.key")


def test_the_wrong_one_of_the_two(files: tuple[Path, Path]) -> None:
    with pytest.raises(KeyFileError, match=r"agents' file; check needs cluster\.key, which"):
        load_coordinator_key(files[1])
    with pytest.raises(KeyFileError, match=r"serve needs cluster\.agent\.key, which"):
        load_agent_key(files[0])


def test_a_file_that_others_can_read_is_a_warning(files: tuple[Path, Path]) -> None:
    files[0].chmod(0o644)
    files[1].chmod(0o640)
    (warning,) = load_coordinator_key(files[0]).warnings
    assert "mode 0644" in warning
    assert f"chmod 600 {files[0]}" in warning
    assert "mode 0640" in load_agent_key(files[1]).warnings[0]


@pytest.mark.parametrize(
    ("mode", "owner", "group", "quiet"),
    [
        (0o440, 0, 4242, True),  # a Secret in a pod with fsGroup
        (0o640, 0, 4242, True),
        (0o444, 0, 4242, False),
        (0o460, 0, 4242, False),
        (0o440, 10888, 4242, False),  # the owner could make it stricter
        (0o440, 0, 17, False),
    ],
)
def test_a_file_that_root_gave_to_our_group_is_none(
    mode: int, owner: int, group: int, *, quiet: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 10888)
    monkeypatch.setattr(os, "getegid", lambda: 10888)
    monkeypatch.setattr(os, "getgroups", lambda: [4242])
    status = os.stat_result((stat.S_IFREG | mode, 0, 0, 1, owner, group, 0, 0, 0, 0))
    assert _is_given_by_root(status) is quiet


def test_windows_line_ends_do_not_matter(files: tuple[Path, Path]) -> None:
    files[1].write_bytes(files[1].read_bytes().replace(b"\n", b"\r\n"))
    assert len(load_agent_key(files[1]).mac_key) == 32


def test_a_folder_is_not_a_key_file(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="cannot be read: Is a directory"):
        load_agent_key(tmp_path)


def test_garbage(tmp_path: Path, files: tuple[Path, Path]) -> None:
    (tmp_path / "noise").write_bytes(bytes(range(256)))
    with pytest.raises(KeyFileError, match="is no key file of preflight"):
        load_agent_key(tmp_path / "noise")
    for load, one in ((load_coordinator_key, files[0]), (load_agent_key, files[1])):
        whole = one.read_text()
        for broken in (
            whole[: len(whole) // 2],
            whole.replace("PREFLIGHT MAC KEY", "SOME OTHER KEY"),
            whole.replace("BEGIN CERTIFICATE-----\nMII", "BEGIN CERTIFICATE-----\nAAA"),
            whole.replace("BEGIN PRIVATE KEY-----\nMIG", "BEGIN PRIVATE KEY-----\nAAA"),
            whole + "A" * 70_000,
        ):
            one.write_text(broken)
            with pytest.raises(KeyFileError, match="is damaged"):
                load(one)


def test_a_key_that_is_not_the_certificates(tmp_path: Path, files: tuple[Path, Path]) -> None:
    other = write_keys(tmp_path / "other.key")
    head, _, tail = files[1].read_text().partition("-----BEGIN PRIVATE KEY-----")
    _, _, other_tail = other[1].read_text().partition("-----BEGIN PRIVATE KEY-----")
    assert tail != other_tail
    files[1].write_text(f"{head}-----BEGIN PRIVATE KEY-----{other_tail}")
    with pytest.raises(KeyFileError, match="is damaged"):
        load_agent_key(files[1])


def test_coordinator_and_agent_of_one_cluster_talk(files: tuple[Path, Path]) -> None:
    caller, called = handshake(
        coordinator_context(load_coordinator_key(files[0])), agent_context(load_agent_key(files[1]))
    )
    assert caller.version() == called.version() == "TLSv1.3"


def test_older_tls_is_refused(files: tuple[Path, Path]) -> None:
    for context in (
        coordinator_context(load_coordinator_key(files[0])),
        agent_context(load_agent_key(files[1])),
    ):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
        assert context.verify_mode is ssl.CERT_REQUIRED


def test_another_clusters_keys_are_refused_on_both_sides(
    tmp_path: Path, files: tuple[Path, Path]
) -> None:
    other = write_keys(tmp_path / "other.key")
    theirs = agent_context(load_agent_key(other[1]))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(coordinator_context(load_coordinator_key(files[0])), theirs)
    careless = coordinator_context(load_coordinator_key(files[0]))
    careless.verify_mode = ssl.CERT_NONE
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(careless, theirs)


def test_a_stolen_agents_file_commands_no_agent(files: tuple[Path, Path]) -> None:
    stolen = load_agent_key(files[1])
    as_coordinator = CoordinatorKey(
        mac_key=stolen.mac_key,
        ca_pem=stolen.ca_pem,
        cert_pem=stolen.cert_pem,
        key_pem=stolen.key_pem,
    )
    with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
        handshake(coordinator_context(as_coordinator), agent_context(stolen))


def test_a_coordinators_certificate_is_no_agents(files: tuple[Path, Path]) -> None:
    key = load_coordinator_key(files[0])
    as_agent = AgentKey(
        mac_key=key.mac_key, ca_pem=key.ca_pem, cert_pem=key.cert_pem, key_pem=key.key_pem
    )
    with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
        handshake(coordinator_context(key), agent_context(as_agent))


def test_a_caller_without_a_certificate_is_refused(files: tuple[Path, Path]) -> None:
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname = False
    bare.load_verify_locations(cadata=load_agent_key(files[1]).ca_pem)
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        handshake(bare, agent_context(load_agent_key(files[1])))


def test_times_of_certificates_do_not_matter(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    past = datetime(2001, 1, 1, tzinfo=UTC)
    monkeypatch.setattr("preflight.net.certificates._VALID_UNTIL", past)
    expired = write_keys(files[0], force=True)
    coordinator, agent = load_coordinator_key(expired[0]), load_agent_key(expired[1])
    certificate = x509.load_pem_x509_certificate(agent.cert_pem.encode())
    assert certificate.not_valid_after_utc == past
    handshake(coordinator_context(coordinator), agent_context(agent))
    # The same certificates fail where times are checked: the flag is what lets them through.
    checking = coordinator_context(coordinator)
    checking.verify_flags = ssl.VerifyFlags.VERIFY_DEFAULT
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        handshake(checking, agent_context(agent))


def test_clusters_have_cas_of_different_names() -> None:
    assert make_ca()[1].subject != make_ca()[1].subject
