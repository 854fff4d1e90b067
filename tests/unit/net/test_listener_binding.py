import errno
import os
import socket

import pytest

from preflight.errors import LimitError
from preflight.net.binding import BindDenied, PortOccupied, bind_listener
from preflight.net.limits import UNLIMITED, descriptor_limit, raise_descriptor_limit
from tests.unit.net.listening_side import ADDRESS


@pytest.mark.parametrize(
    ("number", "address", "raised", "words"),
    [
        (errno.EADDRINUSE, "10.0.0.1", PortOccupied, "^$"),
        (errno.EADDRNOTAVAIL, "10.0.0.1", BindDenied, "address 10.0.0.1 is not on this machine"),
        (errno.EACCES, "10.0.0.1", BindDenied, "without root or CAP_NET_BIND_SERVICE"),
        (errno.EPERM, "10.0.0.1", BindDenied, "without root or CAP_NET_BIND_SERVICE"),
        (errno.EAFNOSUPPORT, "fd00::1", BindDenied, "this machine has no IPv6"),
        (errno.ENOMEM, "10.0.0.1", BindDenied, "10.0.0.1 port 1 could not be bound: Cannot alloc"),
        (errno.EMFILE, "10.0.0.1", LimitError, "no file descriptor is left"),
    ],
)
def test_says_why_it_could_not_bind(
    number: int,
    address: str,
    raised: type[Exception],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> socket.socket:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(raised, match=words):
        bind_listener("tcp", address, 1)


def test_what_is_no_address_is_denied() -> None:
    with pytest.raises(BindDenied, match="could not be bound"):
        bind_listener("tcp", "m1.example", 1)


def test_binds_a_link_local_address_with_its_scope() -> None:
    with pytest.raises(BindDenied, match="fe80::77%lo is not on this machine"):
        bind_listener("tcp", "fe80::77%lo", 1_024)  # with no scope the kernel says EINVAL


def test_without_privilege_the_receive_buffer_is_what_the_host_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Unprivileged(socket.socket):
        def setsockopt(self, *arguments: object) -> None:
            if arguments[1] == 33:
                raise PermissionError
            super().setsockopt(*arguments)  # type: ignore[call-overload]  # any of its forms

    monkeypatch.setattr(socket, "socket", Unprivileged)
    with bind_listener("udp", ADDRESS, 0) as bound:
        assert bound.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) > 2_304


def test_the_limit_is_never_below_what_is_in_force() -> None:
    assert raise_descriptor_limit() == descriptor_limit() <= UNLIMITED
