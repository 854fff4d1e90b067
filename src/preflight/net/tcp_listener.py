"""All TCP listeners of an agent, and what they accept: one epoll loop in one thread.

A listener is silent until it is spoken to (load balancers' health checks speak first), answers
challenges of its own run, and leaves the closing to the source: whoever closes first keeps
TIME_WAIT, which here would keep these ports from programs that are started next. Whatever else
comes is counted and remembered; it is closed, or where its first bytes are not ours, handed over
with these unread. A thread of its own, because thousands of listeners in the event loop would
delay the heartbeats, and cost three times as much.

An ordinary connection's life, and what ends it early:

    accept -> first byte ours? -> whole challenge, valid? -> answer sent -> source closes
       |            no: hand over        no: close                             |
       +-- nothing for IDLE_SECONDS, or pushed out by newer ones: close --------+
"""

import errno
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from preflight.model.plan import Close
from preflight.net.answering import Identity
from preflight.net.binding import FIN_ON_CLOSE
from preflight.net.journal import Journal, Listener, Seen
from preflight.wire.challenge import MAGIC, MAX_SIZE, NotOurs, looks_like_ours

IDLE_SECONDS = 15.0
"""How long a connection may stay without a valid challenge, or after its last answer."""
PATIENCE_SECONDS = 5.0
"""Longer than a source waits: who is pushed out after that has not been wronged."""
MAX_CHALLENGES = 16
"""Challenges on one connection: bounds the bytes that we read from it."""
ACCEPTS_AT_ONCE = 64
"""Connections taken from one listener before the others get their turn."""
SHORT_ROUND = 64
"""Events of a round that is over in a few milliseconds. In such a one each listener gives one
connection: to ask in vain for a second is a tenth of what a connection costs."""
EVICTED_AT_ONCE = 16
MAX_BUFFERED = 16 * 1024 * 1024
"""Bytes of unfinished challenges, of all connections together: 2,000 full-size ones."""
MAX_ROUND = 2.0
"""Seconds for everything that was ready at once. A source waits twice as long for an answer."""
STARVED_PAUSE = 0.02
"""Seconds of pause when the descriptors ran out and none of them is ours to give."""

# Plain numbers: joining two of Python's flags takes longer than the system call that wants them.
# MSG_DONTWAIT saves the system call that would make each accepted socket non-blocking.
_NO_WAIT = int(socket.MSG_DONTWAIT)
_PEEK = int(socket.MSG_PEEK) | _NO_WAIT
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class _Connection:
    """One accepted connection."""

    __slots__ = ("buffer", "challenges", "outgoing", "seen", "since", "socket", "spoke", "writing")

    def __init__(self, accepted: socket.socket, seen: Seen, since: float) -> None:
        self.socket = accepted
        self.seen = seen
        self.since = since
        """When it was accepted, or sent its last valid challenge (monotonic seconds)."""
        self.buffer = b""
        """The beginning of a challenge."""
        self.outgoing = b""
        self.writing = False
        """epoll waits for room to write, and not for bytes to read."""
        self.spoke = False
        """Its first bytes were looked at, and may be ours."""
        self.challenges = 0


class TcpListeners:
    """Holds sockets that already listen. Call `add` and `stop` from one thread."""

    def __init__(
        self,
        identity: Identity,
        journal: Journal,
        *,
        max_connections: int,
        hand_over: Callable[[socket.socket], bool],
        close: Close = "reset",
    ) -> None:
        """`hand_over` is called in the listeners' thread with a stranger's connection, of which
        nothing was read. False: it is not wanted, and is closed. `close`: how a connection ends
        that did not end by its source.
        """
        self._identity = identity
        self._journal = journal
        self._max_connections = max_connections
        self._hand_over = hand_over
        self._resets = close == "reset"
        self._buffered = 0
        self._longest_round = 0.0
        self._listeners: dict[int, tuple[socket.socket, Listener]] = {}
        self._connections: dict[int, _Connection] = {}  # by descriptor, the longest idle first
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="tcp-listeners", daemon=True)
        self._thread.start()

    @property
    def attentive(self) -> bool:
        """Whether the loop runs, and never left anybody waiting for too long.

        Else silence may be its own: a handshake is completed without it, an answer is not.
        """
        return self._thread.is_alive() and self._longest_round <= MAX_ROUND

    def add(self, listening: socket.socket, listener: Listener) -> None:
        """Accept on this socket from now on. It is ours to close."""
        self._listeners[listening.fileno()] = (listening, listener)
        self._epoll.register(listening, select.EPOLLIN)

    def held(self) -> Iterator[tuple[socket.socket, Listener]]:
        """Every socket that is listening now."""
        yield from self._listeners.values()

    def stop(self) -> None:
        """Close everything, and wait for the thread: a few milliseconds. May be repeated."""
        if self._stopping:
            return
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        for connection in list(self._connections.values()):
            self._close(connection)
        for listening, _ in self._listeners.values():
            listening.close()
        self._listeners.clear()
        self._epoll.close()
        os.close(self._wake)

    def _run(self) -> None:
        while not self._stopping:
            ready = self._epoll.poll(self._time_left())
            began = time.monotonic()
            most = 1 if len(ready) <= SHORT_ROUND else ACCEPTS_AT_ONCE
            for descriptor, events in ready:
                if descriptor in self._listeners:
                    self._accept(*self._listeners[descriptor], most)
                elif descriptor in self._connections:
                    # An event of a closed connection whose number was reused in this round
                    # does no harm: reading finds nothing.
                    self._serve(self._connections[descriptor], events)
            self._close_idle()
            self._longest_round = max(self._longest_round, time.monotonic() - began)

    def _time_left(self) -> float | None:
        for oldest in self._connections.values():
            return max(0.0, oldest.since + IDLE_SECONDS - time.monotonic())
        return None

    def _close_idle(self) -> None:
        limit = time.monotonic() - IDLE_SECONDS
        while self._connections:
            oldest = next(iter(self._connections.values()))
            if oldest.since > limit:
                return
            self._close(oldest)

    def _accept(self, listening: socket.socket, listener: Listener, most: int) -> None:
        for _ in range(most):
            try:
                accepted, (source_address, source_port, *_) = listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_DESCRIPTOR:
                    self._make_room(listener)
                    return
                continue  # accept(2): errors of the connection that went away, not of ours
            listener.accepted += 1
            seen = self._journal.accept(listener, source_address, source_port)
            connection = _Connection(accepted, seen, time.monotonic())
            self._connections[accepted.fileno()] = connection
            self._epoll.register(accepted, select.EPOLLIN)
            if len(self._connections) > self._max_connections:
                self._evict()

    def _make_room(self, listener: Listener) -> None:
        if self._connections:
            for _ in range(min(EVICTED_AT_ONCE, len(self._connections))):
                self._evict()
        else:
            # Others of this process have them all. The waiting connection keeps epoll ready,
            # so that without a pause this loop would spin; nobody else waits for us.
            listener.dropped += 1
            time.sleep(STARVED_PAUSE)

    def _evict(self) -> None:
        oldest = next(iter(self._connections.values()))
        if time.monotonic() - oldest.since < PATIENCE_SECONDS:
            oldest.seen.listener.dropped += 1
        self._close(oldest)

    def _serve(self, connection: _Connection, events: int) -> None:
        if connection.challenges and events & select.EPOLLERR:
            self._close(connection)  # answered, and closed with a RST: the usual end
            return
        try:
            if connection.outgoing:
                self._write(connection)
            if not connection.outgoing:
                self._read(connection)
        except BlockingIOError:
            pass
        except NotOurs:
            self._close(connection)
        except OSError:  # the source went away with a RST, or can't be reached any more
            self._close(connection)

    def _read(self, connection: _Connection) -> None:
        if not connection.spoke:
            # Bytes of others stay unread. Ours begin with a byte that nobody else begins with,
            # so whatever may be ours is read at once, and a partial magic can't keep epoll busy.
            first = connection.socket.recv(len(MAGIC), _PEEK)
            if first and not looks_like_ours(first):
                self._part_with(connection)
                return
            connection.spoke = True
        data = connection.socket.recv(MAX_SIZE, _NO_WAIT)
        if not data:
            self._close(connection, ended=True)
            return
        data = connection.buffer + data
        challenge = self._identity.read(data)
        self._keep(connection, data if challenge is None else b"")
        if challenge is None:
            return
        connection.challenges += 1
        if connection.challenges > MAX_CHALLENGES:
            raise NotOurs("more challenges than one connection may send")
        if connection.challenges > 1:
            earlier = connection.seen
            connection.seen = Seen(earlier.listener, earlier.source_address, earlier.source_port)
        self._journal.claim(connection.seen, challenge.probe_id)
        self._refresh(connection)
        connection.outgoing = self._identity.answer(challenge, connection.seen)
        self._write(connection)

    def _keep(self, connection: _Connection, beginning: bytes) -> None:
        self._buffered += len(beginning) - len(connection.buffer)
        connection.buffer = beginning
        while self._buffered > MAX_BUFFERED:
            self._evict()

    def _write(self, connection: _Connection) -> None:
        try:
            sent = connection.socket.send(connection.outgoing, _NO_WAIT)
        except BlockingIOError:
            sent = 0
        connection.outgoing = connection.outgoing[sent:]
        if not connection.outgoing:
            self._journal.note_answered(connection.seen)
        if connection.writing != bool(connection.outgoing):
            connection.writing = bool(connection.outgoing)
            waiting_for = select.EPOLLOUT if connection.writing else select.EPOLLIN
            self._epoll.modify(connection.socket, waiting_for)

    def _refresh(self, connection: _Connection) -> None:
        """Its idle time begins anew: it becomes the youngest."""
        connection.since = time.monotonic()
        descriptor = connection.socket.fileno()
        self._connections[descriptor] = self._connections.pop(descriptor)

    def _part_with(self, stranger: _Connection) -> None:
        """Let somebody else have its socket. What the journal has of it stays there."""
        del self._connections[stranger.socket.fileno()]
        self._epoll.unregister(stranger.socket)
        if not self._resets:
            stranger.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, FIN_ON_CLOSE)
        if not self._hand_over(stranger.socket):
            self._end(stranger.socket)

    def _close(self, connection: _Connection, *, ended: bool = False) -> None:
        """With a reset, which is how accepted sockets are set, no TIME_WAIT is left. Where the
        source `ended` it, it keeps its own.
        """
        del self._connections[connection.socket.fileno()]
        self._buffered -= len(connection.buffer)
        if ended:
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, FIN_ON_CLOSE)
            connection.socket.close()
        else:
            self._end(connection.socket)

    def _end(self, accepted: socket.socket) -> None:
        """Close it before its source does."""
        if not self._resets:
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, FIN_ON_CLOSE)
            with suppress(OSError):  # what stays unread, the kernel answers with a reset
                accepted.recv(MAX_SIZE, _NO_WAIT)
        accepted.close()
