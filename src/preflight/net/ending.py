"""Tasks that are ended together."""

import asyncio
from collections.abc import Collection


async def cancel_all(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel them, and return when all have ended, however they did."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
