"""Read from this host's own tables; that a dead neighbour is found is shown in tests/netns."""

import socket

import pytest

from preflight.net.neighbours import seeks_in_vain


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "fe80::1%lo"])
def test_this_host_itself_is_not_sought(address: str) -> None:
    assert not seeks_in_vain(address)


def test_what_cannot_be_read_does_not_acquit(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(socket, "socket", refuse)
    assert seeks_in_vain("127.0.0.1")
