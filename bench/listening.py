"""Holds a range of TCP ports with the listener engine of the agent, for programs to probe.

    python -m bench.listening ADDRESS FIRST LAST CHALLENGE

Writes a challenge that the listeners answer to the file CHALLENGE, prints a line when all ports
are held, and holds them until standard input ends.
"""

import asyncio
import os
import sys
from pathlib import Path

from preflight.agent.listeners import Listeners
from preflight.model.plan import Listen
from preflight.wire.challenge import ID_BYTES, encode_challenge, new_challenge


async def hold(address: str, first: int, last: int, run_id: bytes, key: bytes) -> None:
    """Until standard input ends."""
    listeners = Listeners(node="bench", run_id=run_id, instance=os.urandom(ID_BYTES), key=key)
    listen = Listen(node="bench", protocol="tcp", address=address, ports=((first, last),))
    try:
        states = await listeners.hold((listen,))
        print({state.state for state in states}, flush=True)
        await asyncio.to_thread(sys.stdin.read)
    finally:
        await listeners.release()


def main() -> None:
    """Read the arguments, write the challenge, hold the ports."""
    address, first, last, challenge = sys.argv[1:]
    run_id, key = os.urandom(ID_BYTES), os.urandom(32)
    Path(challenge).write_bytes(encode_challenge(new_challenge(run_id), key))
    asyncio.run(hold(address, int(first), int(last), run_id, key))


if __name__ == "__main__":
    main()
