import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflight.wire.challenge import (
    MAX_NODE_NAME,
    MAX_SIZE,
    SMALL_SIZE,
    Answer,
    Challenge,
    NotOurs,
    encode_answer,
    encode_challenge,
    looks_like_ours,
    new_challenge,
    read_answer,
    read_challenge,
)

KEY = b"k" * 32
RUN = b"r" * 16


def answer_to(challenge: Challenge, node: str = "m1", address: str = "10.0.0.1") -> Answer:
    return Answer(
        challenge.run_id,
        challenge.probe_id,
        challenge.nonce,
        b"i" * 16,
        address,
        40_000,
        "fd00::11",
        6443,
        node,
    )


@pytest.mark.parametrize("size", [SMALL_SIZE, 8192, MAX_SIZE])
def test_challenge_round_trip(size: int) -> None:
    challenge = new_challenge(RUN, size)
    block = encode_challenge(challenge, KEY)
    assert len(block) == size
    assert read_challenge(block, KEY) == challenge


@pytest.mark.parametrize("address", ["10.0.0.1", "fd00::1", "::1"])
@pytest.mark.parametrize("node", ["m1", "nœud", "n" * MAX_NODE_NAME])
def test_answer_round_trip(address: str, node: str) -> None:
    answer = answer_to(new_challenge(RUN), node, address)
    block = encode_answer(answer, SMALL_SIZE, KEY)
    assert read_answer(block, KEY) == answer


def test_every_challenge_is_new() -> None:
    blocks = {encode_challenge(new_challenge(RUN), KEY) for _ in range(100)}
    assert len(blocks) == 100


def test_an_answer_is_exactly_as_long_as_its_challenge() -> None:
    longest = answer_to(new_challenge(RUN), "n" * MAX_NODE_NAME)
    for size in (SMALL_SIZE, MAX_SIZE):
        assert len(encode_answer(longest, size, KEY)) == size
    with pytest.raises(ValueError, match="longer than"):
        encode_answer(answer_to(new_challenge(RUN), "n" * (MAX_NODE_NAME + 1)), SMALL_SIZE, KEY)


@pytest.mark.parametrize("size", [10, MAX_SIZE + 1])
def test_sizes_are_bounded(size: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        encode_challenge(new_challenge(RUN, size), KEY)


@given(st.integers(0, SMALL_SIZE - 1))
def test_a_prefix_needs_more_bytes(length: int) -> None:
    block = encode_challenge(new_challenge(RUN), KEY)
    assert read_challenge(block[:length], KEY) is None


@given(st.integers(0, SMALL_SIZE - 1), st.integers(1, 255))
def test_a_changed_byte_is_not_ours(place: int, change: int) -> None:
    block = bytearray(encode_challenge(new_challenge(RUN), KEY))
    block[place] ^= change
    with contextlib.suppress(NotOurs):
        assert read_challenge(bytes(block), KEY) is None  # a longer size was stated


@given(st.binary(max_size=MAX_SIZE))
def test_any_bytes_give_nothing_or_one_error(data: bytes) -> None:
    for read in (read_challenge, read_answer):
        with contextlib.suppress(NotOurs):
            assert read(data, KEY) is None


@given(st.binary(max_size=600))
def test_any_bytes_after_our_header_too(data: bytes) -> None:
    head = encode_challenge(new_challenge(RUN), KEY)[:8]
    with contextlib.suppress(NotOurs):
        assert read_challenge(head + data, KEY) is None


def test_another_key_is_not_ours() -> None:
    block = encode_challenge(new_challenge(RUN), os.urandom(32))
    with pytest.raises(NotOurs, match="MAC"):
        read_challenge(block, KEY)


def test_a_challenge_is_no_answer() -> None:
    """A listener that echoes (`nc -e cat`) proves nothing."""
    block = encode_challenge(new_challenge(RUN), KEY)
    with pytest.raises(NotOurs):
        read_answer(block, KEY)


@pytest.mark.parametrize(
    "first", [b"\x16\x03\x01", b"GET /", b"HEAD", b"OPTIONS", b"PROXY", b"\r\n"]
)
def test_one_byte_tells_theirs(first: bytes) -> None:
    assert not looks_like_ours(first[:1])
    with pytest.raises(NotOurs):
        read_challenge(first, KEY)
