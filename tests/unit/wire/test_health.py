import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflight.wire.health import REQUESTS, answer_health_check, is_whole

HEALTHY = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize("path", [b"/", b"/healthz", b"/readyz", b"/livez", b"/healthz?verbose"])
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS"])
def test_health_checks_are_answered(method: bytes, path: bytes) -> None:
    answer = answer_health_check(method + b" " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer is not None
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(HEALTHY)
    assert b"\r\nContent-Length: 2\r\n" in head
    assert b"\r\nConnection: close" in head
    assert body == (b"" if method == b"HEAD" else b"ok")


def test_as_load_balancers_and_people_write_it() -> None:
    for head in (b"OPTIONS / HTTP/1.0\r\n\r\n", b"GET /healthz HTTP/1.0\n\n"):
        assert is_whole(head)
        assert (answer_health_check(head) or b"").startswith(HEALTHY)


@pytest.mark.parametrize("path", [b"/metrics", b"/healthz/", b"*", b"http://x/healthz", b""])
def test_other_paths_are_not_found(path: bytes) -> None:
    answer = answer_health_check(b"GET " + path + b" HTTP/1.1\r\n\r\n")
    assert answer is not None
    assert answer.startswith(b"HTTP/1.1 404 Not Found\r\n")


@pytest.mark.parametrize(
    "line", [b"POST / HTTP/1.1", b"GET /", b"GET / HTTP/2", b"GET / HTTP/1.1 x", b"get / HTTP/1.1"]
)
def test_anything_else_gets_nothing(line: bytes) -> None:
    assert answer_health_check(line + b"\r\n\r\n") is None


@given(st.sampled_from(REQUESTS), st.binary(max_size=300))
def test_nothing_of_the_question_is_in_the_answer(request: bytes, rest: bytes) -> None:
    answer = answer_health_check(request + rest)
    if answer is not None:
        told = {answer_health_check(request + path + b" HTTP/1.1") for path in (b"/", b"/none")}
        assert answer in told
