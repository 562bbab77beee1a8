"""Reading one file from where it lies: http, https, a file address or a path, from any byte on where that works."""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from lodestar import __version__
from lodestar.data.errors import ConfigError, DataError

__all__ = ["Remote", "address_of", "chunks", "open_remote"]

TIMEOUT_S: Final = 30.0
CHUNK_BYTES: Final = 1 << 18
AGAIN: Final = "Run the same command again, which goes on where it ended if the server allows it"
CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


@dataclass(frozen=True, slots=True)
class Remote:
    """An open file: its bytes from `start_bytes` on, its whole length and its version, where the server says so."""

    stream: IO[bytes]
    start_bytes: int
    total_bytes: int | None
    version: str | None


def address_of(source: str, folder: str, file: str) -> str:
    """Return the address of a file below a mirror (a URL that ends in a slash, or a directory), or else the source.

    A mirror is laid out as the traces of a workspace are; in a directory the file may also lie at the top.

    >>> address_of("http://mirror/traces/", "azure-2023-code", "code.csv")
    'http://mirror/traces/azure-2023-code/code.csv'
    """
    scheme = SCHEME.match(source)
    if scheme and scheme[1].lower() not in ("http", "https", "file"):
        raise ConfigError(f"--from {source}: cannot read {scheme[1]}://; expected http, https, file or a path")
    if scheme and scheme[1].lower() != "file":
        return f"{source}{folder}/{file}" if source.endswith("/") else source
    path = Path(urllib.request.url2pathname(source[len("file://") :].removeprefix("localhost")) if scheme else source)
    if path.is_dir():
        nested = path / folder / file
        return str(nested if nested.is_file() else path / file)
    return str(path)


@contextmanager
def open_remote(address: str, start_bytes: int, version: str | None, advice: str) -> Iterator[Remote]:
    """Open a file at a byte, if it still is the version that the earlier bytes came from, or else at its beginning.

    What goes wrong is told in one line that ends in `advice`.
    """
    try:
        opened = _open_http(address, start_bytes, version) if SCHEME.match(address) else _open_path(Path(address))
    except urllib.error.HTTPError as error:
        error.close()
        said = f"{error.code} {error.reason}"
        raise DataError(f"{address}: the server says {said}; expected the file. {advice}") from error
    except (http.client.HTTPException, OSError, ValueError) as error:
        cause = getattr(error, "reason", error)
        reason = getattr(cause, "strerror", None) or str(cause) or repr(cause)
        where = "no network or no such host, expected an answer" if SCHEME.match(address) else "expected the file"
        raise DataError(f"{address}: cannot be read ({reason}); {where}. {advice}") from error
    with opened.stream:
        yield opened


def chunks(remote: Remote, address: str, total_bytes: int | None) -> Iterator[bytes]:
    """Read a file piece by piece; a connection that ends before `total_bytes`, where they are known, is an error."""
    position = remote.start_bytes
    try:
        while piece := remote.stream.read(CHUNK_BYTES):
            position += len(piece)
            yield piece
    except (http.client.HTTPException, OSError) as error:
        raise DataError(
            f"{address}: the connection broke ({str(error) or repr(error)}); expected more. {AGAIN}"
        ) from error
    if total_bytes is not None and position < total_bytes:
        raise DataError(f"{address}: the connection ended after {position:,} bytes; expected {total_bytes:,}. {AGAIN}")


def _open_path(path: Path) -> Remote:
    stream = path.open("rb")
    return Remote(stream, 0, path.stat().st_size, None)


def _open_http(url: str, start_bytes: int, version: str | None) -> Remote:
    request = urllib.request.Request(url, headers={"User-Agent": f"lodestar/{__version__}"})
    if start_bytes:
        request.add_header("Range", f"bytes={start_bytes}-")
        if version:
            request.add_header("If-Range", version)
    try:
        response: http.client.HTTPResponse = _opener().open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start_bytes:
            error.close()
            return _open_http(url, 0, None)
        raise
    if not start_bytes or response.status != http.HTTPStatus.PARTIAL_CONTENT:
        length = response.headers.get("Content-Length")
        return Remote(response, 0, int(length) if length else None, _version(response))
    span = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    changed = version and _version(response) not in (None, version)
    if span is None or int(span[1]) != start_bytes or changed:
        response.close()
        return _open_http(url, 0, None)
    return Remote(response, start_bytes, None if span[2] == "*" else int(span[2]), _version(response))


def _opener() -> urllib.request.OpenerDirector:
    """Speak http and https alone: a redirect to anything else, such as a local file, is refused."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _version(response: http.client.HTTPResponse) -> str | None:
    """Return what tells two versions of a file apart; a weak tag does not promise the same bytes."""
    tag = response.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")
