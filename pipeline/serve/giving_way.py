"""Letting decisions pass between the parts of longer work."""

from __future__ import annotations

import asyncio
from typing import Final

__all__ = ["give_way"]

#: Rounds of the loop from the bytes of a request to its answer: one to read, one to queue, one to decide, one to spare.
_ROUNDS: Final = 4


async def give_way() -> None:
    """Let every decision that has come in be made and answered."""
    for _ in range(_ROUNDS):
        await asyncio.sleep(0)
