"""Challenge and answer: the proof that the right agent was reached.

Both are one block of `size` bytes, padding included:

    magic 4 | version 1 | kind 1 | size 2 | body | padding | HMAC-SHA256 32

The MAC covers everything before it, so that a block can't be shortened, padded or taken
from one kind to the other. An answer is never longer than its challenge, so that the UDP
side can't be used to amplify. The magic begins with a byte that no TLS record, HTTP request
or PROXY header begins with: one byte tells ours from theirs.

The answer says what the listener saw (the source's address and port), where it was reached
(its own address and port), and who it is. So a translation on the way shows, and a redirect
to another agent, or to another port of the same one, can't pass for the real thing.
"""

import functools
import hmac
import ipaddress
import os
import struct
from typing import NamedTuple

MAGIC = b"\xf1\x9ePF"
VERSION = 1
KIND_CHALLENGE = 1
KIND_ANSWER = 2

MAC_BYTES = 32
ID_BYTES = 16
SMALL_SIZE = 256
"""Bytes of an ordinary challenge: room for the longest answer."""
MAX_SIZE = 9_000

_HEADER = struct.Struct("!4sBBH")
_CHALLENGE = struct.Struct("!16s16s16s")
_ANSWER = struct.Struct("!16s16s16s16s16sH16sHB")
_SMALLEST = _HEADER.size + _CHALLENGE.size + MAC_BYTES
_ADDRESSES = 1_024
"""Remembered: packing one takes longer than the rest of an answer, and a run has few."""
MAX_NODE_NAME = SMALL_SIZE - _HEADER.size - _ANSWER.size - MAC_BYTES
"""Bytes that a node's name may have in UTF-8."""


class NotOurs(ValueError):
    """These bytes are no block of ours, or one that was not made with our key."""


class Challenge(NamedTuple):
    """What a source asks. All three are raw bytes of `ID_BYTES`."""

    run_id: bytes
    probe_id: bytes
    nonce: bytes
    size: int = SMALL_SIZE


class Answer(NamedTuple):
    """What a listener says of itself and of what it saw."""

    run_id: bytes
    probe_id: bytes
    nonce: bytes
    instance: bytes
    source_address: str
    source_port: int
    address: str
    port: int
    node: str


def new_challenge(run_id: bytes, size: int = SMALL_SIZE) -> Challenge:
    """A challenge with a fresh probe id and nonce from the system's random source."""
    random = os.urandom(2 * ID_BYTES)
    return Challenge(run_id, random[:ID_BYTES], random[ID_BYTES:], size)


def encode_challenge(challenge: Challenge, key: bytes) -> bytes:
    """The block to send. Raises `ValueError` where `size` is outside the allowed range."""
    if not _SMALLEST <= challenge.size <= MAX_SIZE:
        raise ValueError(f"challenge size {challenge.size} is outside {_SMALLEST}-{MAX_SIZE}")
    body = _CHALLENGE.pack(challenge.run_id, challenge.probe_id, challenge.nonce)
    return _seal(KIND_CHALLENGE, body, challenge.size, key)


def encode_answer(answer: Answer, size: int, key: bytes) -> bytes:
    """The block to send back, as long as the challenge was (`size`)."""
    name = answer.node.encode()
    if len(name) > MAX_NODE_NAME:
        raise ValueError(f"node name {answer.node!r} is longer than {MAX_NODE_NAME} bytes")
    body = _ANSWER.pack(
        answer.run_id,
        answer.probe_id,
        answer.nonce,
        answer.instance,
        _pack_address(answer.source_address),
        answer.source_port,
        _pack_address(answer.address),
        answer.port,
        len(name),
    )
    return _seal(KIND_ANSWER, body + name, size, key)


def read_challenge(data: bytes, key: bytes) -> Challenge | None:
    """Read a challenge from the beginning of a stream, or a whole datagram.

    None: more bytes are needed. Raises `NotOurs` as soon as the bytes can't become one.
    """
    opened = _open(KIND_CHALLENGE, data, key)
    if opened is None:
        return None
    size, body = opened
    run_id, probe_id, nonce = _CHALLENGE.unpack_from(body)
    return Challenge(run_id, probe_id, nonce, size)


def read_answer(data: bytes, key: bytes) -> Answer | None:
    """Read an answer; as `read_challenge` does. The caller compares ids and nonce."""
    opened = _open(KIND_ANSWER, data, key)
    if opened is None:
        return None
    body = opened[1]
    if len(body) < _ANSWER.size:
        raise NotOurs("answer too short")
    run_id, probe_id, nonce, instance, source, source_port, address, port, length = (
        _ANSWER.unpack_from(body)
    )
    name = body[_ANSWER.size : _ANSWER.size + length]
    if len(name) != length:
        raise NotOurs("answer too short")
    try:
        node = name.decode()
    except UnicodeDecodeError as error:
        raise NotOurs("node name is not UTF-8") from error
    return Answer(
        run_id,
        probe_id,
        nonce,
        instance,
        _unpack_address(source),
        source_port,
        _unpack_address(address),
        port,
        node,
    )


def looks_like_ours(data: bytes) -> bool:
    """Whether these first bytes may be the beginning of a block of ours (a prefix suffices)."""
    return MAGIC.startswith(data[: len(MAGIC)])


def _seal(kind: int, body: bytes, size: int, key: bytes) -> bytes:
    head = _HEADER.pack(MAGIC, VERSION, kind, size) + body
    padding = size - len(head) - MAC_BYTES
    if padding < 0:
        raise ValueError(f"a block of {size} bytes is too small for its content")
    signed = head + bytes(padding)
    return signed + hmac.digest(key, signed, "sha256")


def _open(kind: int, data: bytes, key: bytes) -> tuple[int, bytes] | None:
    if not looks_like_ours(data):
        raise NotOurs("no magic")
    if len(data) < _HEADER.size:
        return None
    _, version, found, size = _HEADER.unpack_from(data)
    if version != VERSION or found != kind or not _SMALLEST <= size <= MAX_SIZE:
        raise NotOurs("another version or kind")
    if len(data) < size:
        return None
    if len(data) > size:
        raise NotOurs("more bytes than stated")
    signed, mac = data[:-MAC_BYTES], data[-MAC_BYTES:]
    if not hmac.compare_digest(hmac.digest(key, signed, "sha256"), mac):
        raise NotOurs("wrong MAC")
    return size, signed[_HEADER.size :]


@functools.lru_cache(maxsize=_ADDRESSES)
def _pack_address(text: str) -> bytes:
    """Sixteen bytes; IPv4 as an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2)."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if address.version == 4:
        return b"\0" * 10 + b"\xff\xff" + address.packed
    return address.packed


@functools.lru_cache(maxsize=_ADDRESSES)
def _unpack_address(packed: bytes) -> str:
    address = ipaddress.IPv6Address(packed)
    return str(address.ipv4_mapped or address)
