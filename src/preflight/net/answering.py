"""What a listener says, and to whom: the same for TCP and UDP."""

from typing import NamedTuple

from preflight.net.journal import Seen
from preflight.wire.challenge import (
    SMALL_SIZE,
    Answer,
    Challenge,
    NotOurs,
    encode_answer,
    read_challenge,
)


class Identity(NamedTuple):
    """In whose name, and for which run, listeners answer."""

    node: str
    run_id: bytes
    instance: bytes
    key: bytes

    def read(self, data: bytes) -> Challenge | None:
        """A challenge of our own run; None: more bytes are needed. Raises `NotOurs`."""
        challenge = read_challenge(data, self.key)
        if challenge is not None and challenge.run_id != self.run_id:
            raise NotOurs("a challenge of another run")
        if challenge is not None and challenge.size < SMALL_SIZE:
            raise NotOurs("a challenge without room for the answer")
        return challenge

    def answer(self, challenge: Challenge, seen: Seen) -> bytes:
        """The answer, as long as the challenge was."""
        answer = Answer(
            run_id=self.run_id,
            probe_id=challenge.probe_id,
            nonce=challenge.nonce,
            instance=self.instance,
            source_address=seen.source_address,
            source_port=seen.source_port,
            address=seen.listener.address,
            port=seen.listener.port,
            node=self.node,
        )
        return encode_answer(answer, challenge.size, self.key)
