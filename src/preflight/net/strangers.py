"""Connections whose first bytes are not ours: the listeners hand them over, unread.

A load balancer looks at a port before it sends anybody there, so a plain health check is
answered. Everybody else is closed without a word. Nothing of this touches a verdict: that the
connection was made is in the journal, as that of every other that never sent a challenge.

    peeked -> room? -> a first word of `_SPOKEN`? -> it speaks -> closed
                no: closed         no: closed           or after PATIENCE_SECONDS

To understand more (TLS, the PROXY protocol): add its first word and who speaks it to `_SPOKEN`.
"""

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from preflight.wire.health import MAX_HEAD, REQUESTS, answer_health_check, is_whole

log = logging.getLogger("preflight.net")

MAX_STRANGERS = 64
"""At once, in one agent. Health checks take milliseconds."""
PATIENCE_SECONDS = 5.0
"""For one stranger, from its first bytes to its end."""

Speak: TypeAlias = Callable[[socket.socket], Awaitable[None]]
"""Has a conversation on a non-blocking socket of which nothing was read. Returns when the
stranger was told all; the socket is closed then, and also when it raises `OSError`."""


class Strangers:
    """Talks to strangers in the event loop in which it was made."""

    def __init__(self) -> None:
        self.met = 0
        self.turned_away = 0
        """Those for whom there was no room."""
        self._loop = asyncio.get_running_loop()
        self._room = threading.BoundedSemaphore(MAX_STRANGERS)
        self._meetings: set[asyncio.Task[None]] = set()
        self._closed = False

    def offer(self, stranger: socket.socket) -> bool:
        """From any thread: take a connection. False: there is no room, it stays the caller's."""
        if not self._room.acquire(blocking=False):
            self.turned_away += 1
            return False
        self.met += 1
        self._loop.call_soon_threadsafe(self._take, stranger)
        return True

    async def close(self) -> None:
        """Leave every stranger. Nobody may offer one any more. May be repeated."""
        self._closed = True
        await asyncio.sleep(0)  # those that are on their way from another thread arrive first
        meetings = list(self._meetings)
        for meeting in meetings:
            meeting.cancel()
        await asyncio.gather(*meetings, return_exceptions=True)
        if self.met or self.turned_away:
            log.info("connections of strangers: %d, turned away %d", self.met, self.turned_away)

    def _take(self, stranger: socket.socket) -> None:
        if self._closed:
            self._leave(stranger)
            return
        meeting = self._loop.create_task(_meet(stranger))
        self._meetings.add(meeting)
        meeting.add_done_callback(self._meetings.discard)
        # Not in the task: one that is cancelled before its first step never runs.
        meeting.add_done_callback(lambda _: self._leave(stranger))

    def _leave(self, stranger: socket.socket) -> None:
        stranger.close()
        self._room.release()


async def _meet(stranger: socket.socket) -> None:
    stranger.settimeout(0)  # non-blocking
    # Whoever is slow, or gone, is left without a word.
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(PATIENCE_SECONDS):
            speak = await _recognise(stranger)
            if speak is not None:
                await speak(stranger)


async def _recognise(stranger: socket.socket) -> Speak | None:
    """Who can speak to this one, by its first bytes, which stay unread. None: nobody."""
    longest = max(map(len, _SPOKEN))
    known = 0
    while True:
        first = stranger.recv(longest, socket.MSG_PEEK)
        for word, speak in _SPOKEN.items():
            if first.startswith(word):
                stranger.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
                return speak
        may_become = any(word.startswith(first) for word in _SPOKEN)
        if not may_become or len(first) == known:  # the latter: it sends no more
            return None
        # What was not read keeps a socket readable. Not so below this mark: socket(7).
        known = len(first)
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, known + 1)
        await _until_readable(stranger)


async def _until_readable(stranger: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(stranger, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(stranger)


async def _check_health(stranger: socket.socket) -> None:
    """Read one request, answer it, and let the stranger close: so no side keeps a TIME_WAIT."""
    loop = asyncio.get_running_loop()
    head = b""
    while not is_whole(head) and len(head) < MAX_HEAD:
        more = await loop.sock_recv(stranger, MAX_HEAD - len(head))
        if not more:
            return
        head += more
    answer = answer_health_check(head) if is_whole(head) else None
    if answer is not None:
        await loop.sock_sendall(stranger, answer)
        await loop.sock_recv(stranger, MAX_HEAD)


_SPOKEN: Mapping[bytes, Speak] = dict.fromkeys(REQUESTS, _check_health)
"""The first bytes of those whom we understand, and who speaks to them."""
