"""Compressed bytes to plain ones, as a stream: gzip, zstd and bzip2, told apart by content and never by name."""

from __future__ import annotations

import bz2
import gzip
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Final, cast

import zstandard

from lodestar.data.errors import DataError

__all__ = ["DAMAGE", "guarded", "refuse_bomb", "unpacked"]

#: What reading a damaged or truncated compressed stream may raise.
DAMAGE: Final = (EOFError, OSError, zlib.error, zipfile.BadZipFile, zstandard.ZstdError, RuntimeError)
# A log shrinks 5 to 50 times; a stream that passes this after its first GiB is made to fill memory or disk.
MOST_RATIO: Final = 1000
FREE_BYTES: Final = 1 << 30
FED_BYTES: Final = 1 << 12  # at a time: what zstd makes of them cannot be limited, and may be 100 MB
MOST_WINDOW: Final = 1 << 27


def _zstd(packed: IO[bytes]) -> Iterator[bytes]:
    """Unpack frame after frame; zstandard's own reader takes a cut frame for a whole one."""
    part = packed.read(FED_BYTES)
    while part:
        frame = zstandard.ZstdDecompressor(max_window_size=MOST_WINDOW).decompressobj()
        while not frame.eof:
            if not part:
                raise EOFError("it ends within a frame")
            yield frame.decompress(part)
            part = b"" if frame.eof else packed.read(FED_BYTES)
        part = frame.unused_data or packed.read(FED_BYTES)


def _bzip2(packed: IO[bytes]) -> Iterator[bytes]:
    """Unpack stream after stream; Python's own reader leaves out what follows a stream and is none."""
    part = packed.read(FED_BYTES)
    while part:
        stream = bz2.BZ2Decompressor()
        while not stream.eof:
            if stream.needs_input and not part:
                raise EOFError("it ends within a stream")
            yield stream.decompress(part, MOST_WINDOW)
            part = packed.read(FED_BYTES) if stream.needs_input and not stream.eof else b""
        part = stream.unused_data or packed.read(FED_BYTES)


OPENERS: Final[dict[bytes, Callable[[IO[bytes]], IO[bytes]]]] = {
    b"\x1f\x8b": lambda packed: cast(IO[bytes], gzip.GzipFile(fileobj=packed)),
    b"\x28\xb5\x2f\xfd": lambda packed: cast(IO[bytes], _Pieces(_zstd(packed))),
    b"BZh": lambda packed: cast(IO[bytes], _Pieces(_bzip2(packed))),
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


def refuse_bomb(name: str, packed_bytes: int, bytes_so_far: int) -> None:
    """Raise for what unpacks to far more than any log does."""
    if bytes_so_far > FREE_BYTES and bytes_so_far > MOST_RATIO * max(packed_bytes, 1):
        raise DataError(
            f"{name}: {packed_bytes} bytes unpack to {bytes_so_far} or more; expected at most {MOST_RATIO} times as "
            "many. Unpack it by hand if it is a log"
        )


def guarded(stream: IO[bytes], name: str) -> IO[bytes]:
    """Read a stream such that damage in it is an error of one line."""
    return io.BufferedReader(_Guarded(stream, None, name), 1 << 20)


class _Pieces:
    """An iterator of bytes as a readable stream."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, memoryview(b"")

    def read(self, size: int) -> memoryview:
        """Give some bytes, none at the end."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._rest = memoryview(piece)
        part, self._rest = self._rest[:size], self._rest[size:]
        return part


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

    def __init__(self, stream: IO[bytes], packed: _Counted | None, name: str) -> None:
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
        if self._packed is not None:
            refuse_bomb(self._name, self._packed.taken, self._given)
        return part
