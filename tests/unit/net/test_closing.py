"""How a connection of the prober ends, and what it leaves of the source's port."""

import socket
from contextlib import closing

import pytest

from preflight.model.plan import Close
from preflight.net.binding import bind_listener
from preflight.net.tcp_attempt import TcpAttempt
from tests.unit.net.listening_side import ADDRESS


def end_a_connection(close: Close) -> tuple[TcpAttempt, bytes | None]:
    """One that was accepted; what the listener reads at its end, None for a reset."""
    with closing(socket.create_server((ADDRESS, 0))) as listening:
        attempt = TcpAttempt(ADDRESS, None, b"", 0.0)
        attempt.begin(socket.AF_INET, listening.getsockname(), close)
        accepted, _ = listening.accept()
        with closing(accepted):
            attempt.close()
            try:
                return attempt, accepted.recv(1)
            except ConnectionResetError:
                return attempt, None


@pytest.mark.parametrize(("close", "read"), [("reset", None), ("fin", b"")])
def test_the_source_ends_it_and_its_port_can_be_listened_on(
    close: Close, read: bytes | None
) -> None:
    attempt, last = end_a_connection(close)
    assert last == read
    # With "fin" the port is in TIME_WAIT, and would be occupied if it were an ordinary one.
    bind_listener("tcp", attempt.local_address, attempt.local_port).close()
