"""Compressed bytes to plain ones, as a stream: gzip, zstd and bzip2, told apart by content and never by name."""

from __future__ import annotations

import bz2
import gzip
import io
import zlib
from collections.abc import Callable
from typing import IO, Final

import zstandard

from lodestar.data.errors import DataError

__all__ = ["DAMAGE", "unpacked"]

#: What reading a damaged or truncated compressed stream may raise.
DAMAGE: Final = (EOFError, OSError, zlib.error, zstandard.ZstdError, RuntimeError)
# A log shrinks 5 to 50 times; a stream that passes this after its first GiB is made to fill memory or disk.
MOST_RATIO: Final = 1000
FREE_BYTES: Final = 1 << 30


def _zstd(packed: IO[bytes]) -> IO[bytes]:
    return zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(packed, read_across_frames=True)


OPENERS: Final[dict[bytes, Callable[[IO[bytes]], IO[bytes]]]] = {
    b"\x1f\x8b": lambda packed: gzip.open(packed),
    b"\x28\xb5\x2f\xfd": _zstd,
    b"BZh": lambda packed: bz2.BZ2File(packed),
}


def unpacked(stream: IO[bytes], name: str) -> IO[bytes]:
    """Undo gzip, zstd or bzip2 where the stream starts with their magic; any other stream comes back as it is.

    >>> unpacked(io.BytesIO(gzip.compress(b"a,b")), "log.gz").read()
    b'a,b'
    """
    packed = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(_Raw(stream))
    magic = packed.peek(4)[:4]
    opener = next((make for start, make in OPENERS.items() if magic.startswith(start)), None)
    if opener is None:
        return packed
    counted = _Counted(packed)
    return io.BufferedReader(_Guarded(opener(counted), counted, name), 1 << 20)  # type: ignore[arg-type]


class _Raw(io.RawIOBase):
    """Any readable stream as a raw one."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        part = self._stream.read(len(buffer))
        buffer[: len(part)] = part
        return len(part)


class _Counted(_Raw):
    """Counts what was taken from a packed stream."""

    taken = 0

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        part = super().readinto(buffer)
        self.taken += part
        return part


class _Guarded(_Raw):
    """Counts what came out, and turns damage and bombs into one line."""

    def __init__(self, stream: IO[bytes], packed: _Counted, name: str) -> None:
        super().__init__(stream)
        self._packed, self._name, self._given = packed, name, 0

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            part = super().readinto(buffer)
        except DAMAGE as error:
            raise DataError(
                f"{self._name}: damaged compressed file ({error or type(error).__name__}); expected a whole one. "
                "Copy it again"
            ) from error
        self._given += part
        if self._given > FREE_BYTES and self._given > MOST_RATIO * max(self._packed.taken, 1):
            raise DataError(
                f"{self._name}: {self._packed.taken} bytes unpack to more than {self._given}; expected at most "
                f"{MOST_RATIO} times as many. Unpack it by hand if it is a log"
            )
        return part
