import errno
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflight.model.observation import Failure, Icmp, Operation
from preflight.net.classify import OWN_KERNEL, Fault, classify, classify_stream
from preflight.net.errqueue import (
    ORIGIN_ICMP,
    ORIGIN_ICMP6,
    ORIGIN_LOCAL,
    QueuedError,
    parse_extended_error,
)

OWN = "10.0.1.2"
ASKED = "10.0.2.2"
ROUTER = "10.0.1.1"
OWN6 = "fd00:1::2"
ASKED6 = "fd00:2::2"


def icmp4(code: int, sender: str, number: int, kind: int = 3) -> list[QueuedError]:
    return [QueuedError(number, ORIGIN_ICMP, kind, code, sender)]


def icmp6(code: int, sender: str, number: int, kind: int = 1) -> list[QueuedError]:
    return [QueuedError(number, ORIGIN_ICMP6, kind, code, sender)]


@pytest.mark.parametrize(
    ("number", "failure"),
    [
        (errno.ECONNREFUSED, Failure.RESET),
        (errno.EHOSTUNREACH, Failure.NO_ROUTE),
        (errno.ENETUNREACH, Failure.NO_ROUTE),
        (errno.EINVAL, Failure.NO_ROUTE),
        (errno.EAFNOSUPPORT, Failure.NO_ROUTE),
        (errno.EACCES, Failure.SEND_DENIED),
        (errno.EPERM, Failure.SEND_DENIED),
        (errno.ETIMEDOUT, Failure.NO_ANSWER),
        (errno.EMFILE, Failure.LOCAL_LIMIT),
        (errno.ENFILE, Failure.LOCAL_LIMIT),
        (errno.ENOBUFS, Failure.LOCAL_LIMIT),
        (errno.EADDRNOTAVAIL, Failure.LOCAL_LIMIT),
        (errno.EPROTONOSUPPORT, Failure.LOCAL_LIMIT),
    ],
)
def test_an_errno_with_an_empty_queue(number: int, failure: Failure) -> None:
    found = classify(number, operation=Operation.CONNECT, own=OWN, asked=ASKED)
    assert found == Fault(failure, Operation.CONNECT, errno.errorcode[number], None)


@pytest.mark.parametrize(
    ("code", "number"),
    [
        (0, errno.ENETUNREACH),
        (1, errno.EHOSTUNREACH),
        (2, errno.ENOPROTOOPT),
        (3, errno.ECONNREFUSED),
        (9, errno.ENETUNREACH),
        (10, errno.EHOSTUNREACH),
        (13, errno.EHOSTUNREACH),
    ],
)
@pytest.mark.parametrize("sender", [ROUTER, ASKED])
def test_icmp_of_others(code: int, number: int, sender: str) -> None:
    queued = icmp4(code, sender, number)
    found = classify(number, queued, operation=Operation.CONNECT, own=OWN, asked=ASKED)
    assert found == Fault(
        Failure.ICMP, Operation.CONNECT, errno.errorcode[number], Icmp(4, 3, code, sender)
    )


@pytest.mark.parametrize("code", [0, 1, 3, 4, 5, 6])
def test_icmpv6_of_others(code: int) -> None:
    queued = icmp6(code, "fd00:1::1", errno.EACCES)
    found = classify(0, queued, operation=Operation.RECEIVE, own=OWN6, asked=ASKED6)
    assert found == Fault(Failure.ICMP, Operation.RECEIVE, "EACCES", Icmp(6, 1, code, "fd00:1::1"))


@pytest.mark.parametrize(
    ("queued", "own", "asked", "failure"),
    [
        (icmp4(1, OWN, errno.EHOSTUNREACH), OWN, ASKED, Failure.NO_NEIGHBOUR),
        (icmp6(3, OWN6, errno.EHOSTUNREACH), OWN6, ASKED6, Failure.NO_NEIGHBOUR),
        (icmp4(3, OWN, errno.ECONNREFUSED), OWN, ASKED, Failure.SEND_DENIED),
        (icmp4(13, OWN, errno.EHOSTUNREACH), OWN, ASKED, Failure.SEND_DENIED),
        (icmp6(4, OWN6, errno.ECONNREFUSED), OWN6, ASKED6, Failure.SEND_DENIED),
        (icmp6(1, OWN6, errno.EACCES), OWN6, ASKED6, Failure.SEND_DENIED),
        # Source and destination are one host: it answers as the destination.
        (icmp4(1, OWN, errno.EHOSTUNREACH), OWN, OWN, Failure.ICMP),
        # Nothing is known of our own address, or of the sender.
        (icmp4(1, OWN, errno.EHOSTUNREACH), "", ASKED, Failure.ICMP),
        (icmp4(1, "", errno.EHOSTUNREACH), "", ASKED, Failure.ICMP),
        # A TTL that ran out on the way.
        (icmp4(0, ROUTER, errno.EHOSTUNREACH, kind=11), OWN, ASKED, Failure.ICMP),
    ],
)
def test_the_senders_address_decides(
    queued: list[QueuedError], own: str, asked: str, failure: Failure
) -> None:
    found = classify(
        errno.EHOSTUNREACH,
        queued,
        operation=Operation.CONNECT,
        own=own,
        asked=asked,
        in_vain=lambda address: address == asked,
    )
    assert found.failure is failure
    assert found.icmp is not None


@pytest.mark.parametrize("family", [4, 6])
def test_an_own_firewall_that_speaks_like_a_dead_neighbour_denies(family: int) -> None:
    queued = icmp4(1, OWN, errno.EHOSTUNREACH)
    if family == 6:
        queued = icmp6(3, OWN6, errno.EHOSTUNREACH)
    found = classify(
        errno.EHOSTUNREACH,
        queued,
        operation=Operation.CONNECT,
        own=OWN if family == 4 else OWN6,
        asked=ASKED if family == 4 else ASKED6,
        in_vain=lambda _: False,
    )
    assert found.failure is Failure.SEND_DENIED
    assert found.icmp is not None


def test_icmp_is_found_though_so_error_was_cleared() -> None:
    found = classify(
        0, icmp4(3, ROUTER, errno.ECONNREFUSED), operation=Operation.CONNECT, own=OWN, asked=ASKED
    )
    assert (found.failure, found.errno) == (Failure.ICMP, "ECONNREFUSED")


def test_an_entry_of_the_kernels_own_is_no_icmp() -> None:
    queued = [QueuedError(errno.EACCES, ORIGIN_LOCAL, 0, 0, "")]
    found = classify(0, queued, operation=Operation.SEND)
    assert found == Fault(Failure.SEND_DENIED, Operation.SEND, "EACCES", None)


@pytest.mark.parametrize(
    ("code", "failure", "name"),
    [
        (None, Failure.CLOSED_AFTER_CONNECT, None),
        (errno.ECONNRESET, Failure.CLOSED_AFTER_CONNECT, "ECONNRESET"),
        (errno.EPIPE, Failure.CLOSED_AFTER_CONNECT, "EPIPE"),
        (errno.EHOSTUNREACH, Failure.SILENT_AFTER_CONNECT, "EHOSTUNREACH"),
        (errno.ETIMEDOUT, Failure.SILENT_AFTER_CONNECT, "ETIMEDOUT"),
    ],
)
def test_after_the_handshake(code: int | None, failure: Failure, name: str | None) -> None:
    assert classify_stream(code) == Fault(failure, Operation.RECEIVE, name, None)


@given(st.integers(0, 200), st.sampled_from([Operation.CONNECT, Operation.SEND]))
def test_every_errno_has_a_failure(number: int, operation: Operation) -> None:
    found = classify(number, operation=operation)
    assert found.failure is OWN_KERNEL.get(number, Failure.LOCAL_LIMIT)
    assert found.operation is operation


def extended(number: int, origin: int, kind: int, code: int) -> bytes:
    return struct.pack("=IBBBBII", number, origin, kind, code, 0, 0, 0)


def test_an_ipv4_entry_names_its_sender() -> None:
    offender = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(ROUTER))
    data = extended(errno.EHOSTUNREACH, ORIGIN_ICMP, 3, 13) + offender
    entry = parse_extended_error(data)
    assert entry == QueuedError(errno.EHOSTUNREACH, ORIGIN_ICMP, 3, 13, ROUTER)
    assert entry.family == 4


def test_an_ipv6_entry_names_its_sender() -> None:
    packed = socket.inet_pton(socket.AF_INET6, "fd00::1")
    offender = struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, packed, 0)
    entry = parse_extended_error(extended(errno.EACCES, ORIGIN_ICMP6, 1, 1) + offender)
    assert entry == QueuedError(errno.EACCES, ORIGIN_ICMP6, 1, 1, "fd00::1")
    assert entry.family == 6


@pytest.mark.parametrize("offender", [b"", b"\0", struct.pack("=HH", socket.AF_INET, 0)])
def test_an_entry_without_a_whole_address_has_no_sender(offender: bytes) -> None:
    entry = parse_extended_error(extended(errno.EMSGSIZE, ORIGIN_LOCAL, 0, 0) + offender)
    assert entry.sender == ""
    assert entry.family is None


def test_too_few_bytes_are_no_entry() -> None:
    with pytest.raises(ValueError, match="at least 16 bytes"):
        parse_extended_error(bytes(15))
