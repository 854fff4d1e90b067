"""Health checks over HTTP/1: what a load balancer asks of a port, and the answer. Sans I/O.

Whoever asks learns that something is there, and nothing else: no name, no version, no date.

Source: RFC 9112; `httpchk` of HAProxy sends `OPTIONS / HTTP/1.0`.
"""

REQUESTS = (b"GET ", b"HEAD ", b"OPTIONS ")
"""What a request that is answered begins with."""
MAX_HEAD = 4_096
"""Bytes of a request line with all header fields."""

_PATHS = frozenset({b"/", b"/healthz", b"/readyz", b"/livez"})
_OK, _NOT_FOUND = (b"200 OK", b"ok"), (b"404 Not Found", b"not found")


def is_whole(head: bytes) -> bool:
    """Whether these bytes reach to the blank line that ends a request's head."""
    return b"\r\n\r\n" in head or b"\n\n" in head


def answer_health_check(head: bytes) -> bytes | None:
    """The answer to a whole head. None: it is no request that we know, and gets nothing."""
    method, _, rest = head.partition(b"\n")[0].rstrip(b"\r").partition(b" ")
    target, _, version = rest.partition(b" ")
    if method + b" " not in REQUESTS or version not in (b"HTTP/1.0", b"HTTP/1.1"):
        return None
    status, body = _OK if target.partition(b"?")[0] in _PATHS else _NOT_FOUND
    lines = (
        b"HTTP/1.1 " + status,
        b"Content-Type: text/plain",
        b"Content-Length: %d" % len(body),
        b"Allow: GET, HEAD, OPTIONS",
        b"Connection: close",
    )
    return b"\r\n".join(lines) + b"\r\n\r\n" + (b"" if method == b"HEAD" else body)
