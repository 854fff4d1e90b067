"""One TCP connection of a probe, from its SYN to the answer. It decides nothing by itself."""

import errno
import select
import socket
import struct
from enum import Enum
from typing import Any

from preflight.model.observation import Attempt, Failure, Operation
from preflight.model.plan import Close
from preflight.net.classify import Fault, classify, classify_stream, is_closed
from preflight.net.errqueue import enable_error_queue, read_error_queue
from preflight.net.prober import FIRST_BYTES, check_answer, own_address
from preflight.wire.challenge import Answer, Challenge, NotOurs, encode_challenge

EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
"""Edge-triggered, so that one registration serves connect, send and receive."""

_BROKEN = select.EPOLLERR | select.EPOLLHUP
_READABLE = select.EPOLLIN | select.EPOLLRDHUP | _BROKEN
_RECEIVE_BYTES = 65_536
_NO_LINGER = struct.pack("ii", 1, 0)
_SENT_IN_VAIN = (Failure.NO_ANSWER, Failure.ICMP)

# struct tcp_info (linux/tcp.h): tcpi_rtt in microseconds, and tcpi_total_retrans.
_TCP_INFO_BYTES = 104
_RTT = struct.Struct("=68xI28xI")

# Further on: tcpi_bytes_acked, tcpi_segs_in, tcpi_data_segs_out (since Linux 4.6).
_LONG_TCP_INFO_BYTES = 160
_HEARD = struct.Struct("=120xQ12xI12xI")
_SYN_BYTES = 1
"""A SYN counts as a byte that was acknowledged."""


class Stage(Enum):
    """How far a connection has come."""

    CONNECTING = 1
    ASKING = 2
    ENDED = 3


class TcpAttempt:
    """A non-blocking socket and what is known of it. `fault` and `answer` are set at its end."""

    __slots__ = (
        "_key",
        "_received",
        "_unsent",
        "answer",
        "asked",
        "began_at",
        "challenge",
        "connected",
        "fault",
        "first_bytes",
        "in_window",
        "local_address",
        "local_port",
        "retransmits",
        "rtt_ms",
        "sock",
        "stage",
    )

    def __init__(self, asked: str, challenge: Challenge | None, key: bytes, now: float) -> None:
        """Without a challenge it only connects."""
        self.asked = asked
        self.challenge = challenge
        self.began_at = now
        self.stage = Stage.CONNECTING
        self.connected = False
        self.fault: Fault | None = None
        self.answer: Answer | None = None
        self.first_bytes = b""
        self.local_address = ""
        self.local_port = 0
        self.retransmits = 0
        self.rtt_ms: float | None = None
        self.in_window = False
        self.sock: socket.socket | None = None
        self._key = key
        self._unsent = b""
        self._received = b""

    def begin(self, family: int, address: tuple[Any, ...], close: Close = "reset") -> None:
        """Send the SYN. It may fail at once: then the stage is ENDED."""
        try:
            self.sock = sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            enable_error_queue(sock)
            if close == "reset":
                # Closing sends a RST: no TIME_WAIT remains here or at the destination.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            else:
                # TIME_WAIT remains here, and keeps nobody from listening on this port who sets
                # this option as well: the kernel wants it of both.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            code = sock.connect_ex(address)
            self.local_address, self.local_port = own_address(sock)
        except OSError as error:
            self._fail(classify(error.errno or 0, operation=Operation.CONNECT))
            return
        if code not in (0, errno.EINPROGRESS):
            self._fail_connect(code)

    def on_events(self, events: int, now: float) -> None:
        """Go as far as the socket allows."""
        if self.stage is Stage.CONNECTING:
            if not self._finish_connect(events, now):
                return
            if self.challenge is None:
                self._fail(Fault(Failure.CONNECTED_ONLY, Operation.CONNECT))
                return
            self._unsent = encode_challenge(self.challenge, self._key)
            self.stage = Stage.ASKING
        if self.stage is Stage.ASKING:
            broken = self._send() if self._unsent else None
            # What the other end said before it let go still counts.
            if events & _READABLE or broken:
                self._receive()
            if broken and self.stage is Stage.ASKING:
                self._fail(classify_stream(broken))

    @property
    def in_vain(self) -> bool:
        """Whether nothing ended what its SYN began: a firewall on the way may keep an entry."""
        if self.stage is Stage.CONNECTING:
            return True
        return not self.connected and self.fault is not None and self.fault.failure in _SENT_IN_VAIN

    def count_syns(self) -> int:
        """SYNs sent, the kernel's own retransmissions included."""
        if self.stage is Stage.CONNECTING:
            self._read_info()
        return 1 + self.retransmits

    def close(self) -> None:
        """Free the socket; closing twice does no harm."""
        self.stage = Stage.ENDED
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    def as_unanswered(self, port: int, lost_syns: int) -> Attempt:
        """What the destination can be asked about."""
        return Attempt(
            probe_id=self.challenge.probe_id.hex() if self.challenge else "",
            port=port,
            local_address=self.local_address,
            local_port=self.local_port,
            connected=self.connected,
            lost_syns=lost_syns,
            unheard=self._is_unheard(),
        )

    def _is_unheard(self) -> bool:
        """Whether the other end repeats its SYN-ACK, and has nothing of what followed the SYN.

        A program that accepts and stays silent has a kernel that acknowledges; a SYN proxy
        announces no window, so that nothing is sent, or forgets the SYN-ACK at once.
        """
        if self.stage is not Stage.ASKING or self.sock is None:
            return False
        info = self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LONG_TCP_INFO_BYTES)
        if len(info) < _LONG_TCP_INFO_BYTES:
            return False
        acknowledged, arrived, sent = _HEARD.unpack(info)
        return bool(sent) and arrived > 1 and acknowledged <= _SYN_BYTES

    def _finish_connect(self, events: int, now: float) -> bool:
        assert self.sock is not None
        if events & _BROKEN:
            # SO_ERROR first: reading the error queue may clear it.
            code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if is_closed(code):
                # A SYN is refused with ECONNREFUSED, so this one was accepted and reset.
                self._note_connected(now)
                self._fail(classify_stream(code))
                return False
            if self._fail_connect(code):
                return False
        if not events & select.EPOLLOUT:
            return False
        self._note_connected(now)
        return True

    def _note_connected(self, now: float) -> None:
        self.connected = True
        rtt = self._read_info()
        # The kernel's measure is free of our own delay, but it leaves lost SYNs out.
        measured = rtt if rtt and not self.retransmits else None
        self.rtt_ms = measured or (now - self.began_at) * 1000

    def _read_info(self) -> float | None:
        assert self.sock is not None
        info = self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        if len(info) < _TCP_INFO_BYTES:
            return None
        rtt, self.retransmits = _RTT.unpack(info)
        return float(rtt) / 1000

    def _send(self) -> int | None:
        assert self.sock is not None
        try:
            sent = self.sock.send(self._unsent)
        except BlockingIOError:
            return None
        except OSError as error:
            return error.errno
        self._unsent = self._unsent[sent:]
        return None

    def _receive(self) -> None:
        assert self.sock is not None
        assert self.challenge is not None
        while self.stage is Stage.ASKING:
            try:
                data = self.sock.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self._fail(classify_stream(error.errno))
                return
            if not data:
                self._fail(classify_stream(None))
                return
            self._received += data
            try:
                self.answer = check_answer(self._received, self.challenge, self._key)
            except NotOurs:
                self.first_bytes = self._received[:FIRST_BYTES]
                self._fail(Fault(Failure.FOREIGN_ANSWER, Operation.RECEIVE))
            if self.answer is not None:
                self.stage = Stage.ENDED

    def _fail_connect(self, code: int) -> bool:
        """Whether errno and error queue together hold a reason to fail."""
        assert self.sock is not None
        queued = read_error_queue(self.sock)
        if not code and not queued:
            return False
        own = self.local_address
        self._fail(classify(code, queued, operation=Operation.CONNECT, own=own, asked=self.asked))
        return True

    def _fail(self, fault: Fault) -> None:
        self.fault = fault
        self.stage = Stage.ENDED
