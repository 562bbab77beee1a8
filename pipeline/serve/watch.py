"""Looking for a new version of an artifact that lies on this machine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from lodestar.models.seal import MANIFEST

if TYPE_CHECKING:
    from lodestar.pipeline.serve.serving import Serving

__all__ = ["stamp", "watch"]

Stamp = tuple[int, int, int]


def stamp(place: Path) -> Stamp | None:
    """Return what changes when an artifact does; None where there is none, as between the two moves of a swap."""
    try:
        told = (place / MANIFEST if place.is_dir() else place).stat()
    except OSError:
        return None
    return told.st_mtime_ns, told.st_ino, told.st_size


async def watch(serving: Serving, place: Path, every_s: float, seen: Stamp | None) -> None:
    """Load the artifact again whenever it has changed; one that is refused is not tried again until it changes."""
    while True:
        await asyncio.sleep(every_s)
        now = stamp(place)
        if now is not None and now != seen:
            seen = now
            await asyncio.to_thread(serving.load, str(place), "watch")
