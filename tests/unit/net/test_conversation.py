import asyncio

import pytest

from preflight.errors import WireError
from preflight.net.conversation import (
    ConversationEnded,
    conversation_in_process,
    coordinator_end,
)
from preflight.wire.messages import Ask, Beat, Held


async def test_both_directions() -> None:
    ours, theirs = await conversation_in_process()
    await ours.send(Ask(probe_ids=("a",) * 1000))
    await theirs.send(Held(listeners=()))
    assert await theirs.receive() == Ask(probe_ids=("a",) * 1000)
    assert await ours.receive() == Held(listeners=())
    assert ours.local_address is None
    await ours.close()
    with pytest.raises(ConversationEnded, match="closed"):
        await theirs.receive()
    with pytest.raises(ConversationEnded):
        await theirs.send(Beat())
    await theirs.close()


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\0\0\0\x02hi", b"GET / HTTP/1.1\r\n"])
async def test_what_is_none_of_ours(data: bytes) -> None:
    answered = asyncio.Event()

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        writer.close()
        await writer.wait_closed()
        answered.set()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        conversation = coordinator_end(*await asyncio.open_connection("127.0.0.1", port))
        with pytest.raises(WireError):
            await conversation.receive()
        await conversation.close()
        await answered.wait()
