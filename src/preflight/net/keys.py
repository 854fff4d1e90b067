"""The two key files of a cluster: made by `preflight key`, read by `check` and by `serve`.

    cluster.key         coordinator only: the cluster's CA with its key, and the MAC key
    cluster.agent.key   for every node: the CA's certificate, the agents' own certificate with
                        its key, and the MAC key

Who has the agents' file can answer as an agent, but can't command one: only the CA's key makes
a certificate whose extended key usage is clientAuth.
"""

import base64
import binascii
import os
import re
import secrets
import stat
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from msgspec import Struct

from preflight.errors import KeyFileError
from preflight.net.certificates import issue, make_ca

MAC_KEY_BYTES = 32
MAX_KEY_FILE = 64 * 1024
"""Bytes; a real one has about 2 KB."""

_COORDINATOR_LINE = (
    "preflight coordinator key: for `preflight check`. Who has it commands all agents; "
    "never copy it to a node."
)
_AGENT_LINE = "preflight agent key: for `preflight serve` on every node of the cluster."
_MAC_LABEL = "PREFLIGHT MAC KEY"
_BLOCK = re.compile(
    r"-----BEGIN (?P<label>[A-Z ]+)-----\n(?P<body>[A-Za-z0-9+/=\n]+)-----END (?P=label)-----\n"
)


class Identity(Struct, frozen=True, kw_only=True):
    """What one side needs for TLS and for the MACs. PEM, except for the MAC key."""

    mac_key: bytes
    ca_pem: str
    cert_pem: str
    key_pem: str
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:  # Never a secret in a traceback or a log.
        return f"<{type(self).__name__}>"


class CoordinatorKey(Identity, frozen=True, kw_only=True):
    """The coordinator's side; its certificate was made in memory, for this process only."""


class AgentKey(Identity, frozen=True, kw_only=True):
    """The agents' side, as it stands in their file."""


def agent_key_path(path: Path) -> Path:
    """`cluster.key` -> `cluster.agent.key`, beside it."""
    return path.with_name(path.name.removesuffix(".key") + ".agent.key")


def write_keys(path: Path, *, force: bool = False) -> tuple[Path, Path]:
    """Make the keys of a new cluster; returns the coordinator's file and the agents'.

    Both are made with mode 0600, and each appears whole or not at all. Raises `KeyFileError`,
    with nothing written, where one of the two exists, unless `force` is set.
    """
    if path.name.endswith(".agent.key"):
        raise KeyFileError(
            f"{path} is a name for the agents' file; give the coordinator's, and the agents' "
            "is written beside it"
        )
    both = (path, agent_key_path(path))
    if not force:
        for one in both:
            if one.exists() or one.is_symlink():
                raise KeyFileError(f"{one} exists and is not overwritten without --force")
    contents = _make_contents()
    written: list[Path] = []
    try:
        for one, content in zip(both, contents, strict=True):
            if not force:
                # The name is taken first: of two that write at once, one fails.
                os.close(os.open(one, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
                written.append(one)
            _replace(one, content)
    except OSError as error:
        for one in written:
            one.unlink(missing_ok=True)
        raise KeyFileError(f"{one} cannot be written: {error.strerror}") from error
    return both


def load_coordinator_key(path: Path) -> CoordinatorKey:
    """Read `cluster.key`, and make a certificate for this coordinator. Raises `KeyFileError`."""
    text, warnings = _read(path, _COORDINATOR_LINE)
    (ca_pem, ca_key_pem), mac_key = _blocks(path, text, ["CERTIFICATE", "PRIVATE KEY"])
    try:
        ca = x509.load_pem_x509_certificate(ca_pem.encode())
        ca_key = _load_private(ca_key_pem)
        _check_pair(ca, ca_key)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _damaged(path) from error
    key, certificate = issue("preflight coordinator", ExtendedKeyUsageOID.CLIENT_AUTH, ca, ca_key)
    return CoordinatorKey(
        mac_key=mac_key,
        ca_pem=ca_pem,
        cert_pem=_certificate_pem(certificate),
        key_pem=_private_pem(key),
        warnings=warnings,
    )


def load_agent_key(path: Path) -> AgentKey:
    """Read `cluster.agent.key`. Raises `KeyFileError`."""
    text, warnings = _read(path, _AGENT_LINE)
    (ca_pem, cert_pem, key_pem), mac_key = _blocks(
        path, text, ["CERTIFICATE", "CERTIFICATE", "PRIVATE KEY"]
    )
    try:
        certificate = x509.load_pem_x509_certificate(cert_pem.encode())
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(ca_pem.encode()))
        _check_pair(certificate, _load_private(key_pem))
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise _damaged(path) from error
    return AgentKey(
        mac_key=mac_key, ca_pem=ca_pem, cert_pem=cert_pem, key_pem=key_pem, warnings=warnings
    )


def _make_contents() -> tuple[str, str]:
    ca_key, ca = make_ca()
    key, certificate = issue("preflight agent", ExtendedKeyUsageOID.SERVER_AUTH, ca, ca_key)
    ca_pem = _certificate_pem(ca)
    mac_pem = _mac_pem(secrets.token_bytes(MAC_KEY_BYTES))
    return (
        f"{_COORDINATOR_LINE}\n{ca_pem}{_private_pem(ca_key)}{mac_pem}",
        f"{_AGENT_LINE}\n{ca_pem}{_certificate_pem(certificate)}{_private_pem(key)}{mac_pem}",
    )


def _certificate_pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _private_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def _mac_pem(key: bytes) -> str:
    body = base64.b64encode(key).decode()
    return f"-----BEGIN {_MAC_LABEL}-----\n{body}\n-----END {_MAC_LABEL}-----\n"


def _load_private(pem: str) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an elliptic curve key")  # noqa: TRY004 - one kind of fault for callers
    return key


def _check_pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    if certificate.public_key() != key.public_key():
        raise ValueError("certificate and key do not belong together")


def _replace(path: Path, content: str) -> None:
    """Write a file of mode 0600 under another name, then give it its own."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def _read(path: Path, wanted: str) -> tuple[str, tuple[str, ...]]:
    """The file's text after its first line, which must be the wanted one, and warnings."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(MAX_KEY_FILE + 1)
    except FileNotFoundError:
        raise KeyFileError(_how_to_get(path, wanted)) from None
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}") from error
    text = content.decode("ascii", errors="replace").replace("\r\n", "\n")
    first, _, rest = text.partition("\n")
    if first != wanted:
        raise KeyFileError(_what_is_wrong(path, first))
    if len(content) > MAX_KEY_FILE:
        raise _damaged(path)
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077 and not _is_given_by_root(status):
        return rest, (f"{path} can be read by others (mode {mode:04o}): chmod 600 {path}",)
    return rest, ()


def _is_given_by_root(status: os.stat_result) -> bool:
    """Whether root gave the file to a group of ours to read, as Kubernetes does with a Secret and
    `fsGroup` (0440): we could not make it any stricter.
    """
    ours = {os.getegid(), *os.getgroups()}
    only_read = stat.S_IMODE(status.st_mode) & 0o077 == stat.S_IRGRP
    by_root = status.st_uid == 0 != os.geteuid()
    return only_read and by_root and status.st_gid in ours


def _how_to_get(path: Path, wanted: str) -> str:
    if wanted == _COORDINATOR_LINE:
        return f"there is no key file {path}: `preflight key --out {path}` makes one"
    return (
        f"there is no key file {path}: `preflight key --out cluster.key` writes "
        "cluster.agent.key too; copy that one to every node"
    )


def _what_is_wrong(path: Path, first: str) -> str:
    if first == _AGENT_LINE:
        beside = path.name.removesuffix(".agent.key") + ".key"
        if beside == path.name:
            beside = "cluster.key"
        return (
            f"{path} is the agents' file; check needs {beside}, which `preflight key` "
            "wrote beside it"
        )
    if first == _COORDINATOR_LINE:
        return (
            f"{path} is the coordinator's file and belongs on no node; serve needs "
            f"{agent_key_path(path).name}, which `preflight key` wrote beside it"
        )
    return f"{path} is no key file of preflight: its first line does not say so"


def _blocks(path: Path, text: str, labels: list[str]) -> tuple[list[str], bytes]:
    """The PEM blocks with these labels, in this order, and the MAC key, which follows them."""
    found = list(_BLOCK.finditer(text))
    if [block["label"] for block in found] != [*labels, _MAC_LABEL]:
        raise _damaged(path)
    try:
        mac_key = base64.b64decode(found[-1]["body"], validate=False)
    except binascii.Error as error:
        raise _damaged(path) from error
    if len(mac_key) != MAC_KEY_BYTES:
        raise _damaged(path)
    return [block[0] for block in found[:-1]], mac_key


def _damaged(path: Path) -> KeyFileError:
    return KeyFileError(f"{path} is damaged: copy it again, or make new keys for the cluster")
