"""The catalogue of public traces: where each file is, under which licence, and what it must look like."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final

from lodestar.data.errors import ConfigError, unknown

__all__ = ["Trace", "catalogue", "find_trace", "parse_catalogue"]

CATALOGUE: Final = Path(__file__).with_name("catalogue.toml")
NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]*")
FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
PROVIDES: Final = ("arrivals", "blocks", "decisions", "candidates", "propensities", "outcomes")
COMMIT: Final = re.compile(r"[0-9a-f]{40}")
SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One public file: what it is and provides, where it comes from, and its length and hash where they are known.

    >>> catalogue()["mooncake-conversation"].size_bytes
    3029533
    """

    name: str
    what: str
    source: str
    revision: str
    licence: str
    url: str
    file: str
    provides: tuple[str, ...] = field(default=())
    format: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    note: str | None = None

    @property
    def pinned(self) -> bool:
        """Whether the URL names one commit, so that its content cannot change.

        >>> catalogue()["mooncake-conversation"].pinned, catalogue()["mooncake-toolagent"].pinned
        (True, False)
        """
        return COMMIT.fullmatch(self.revision) is not None

    def __post_init__(self) -> None:
        """Refuse an entry that names no file of its own, or whose hash or address cannot be one."""
        checks: tuple[tuple[str, object, object, str], ...] = (
            ("name", self.name, NAME.fullmatch(self.name), "lower-case letters, digits and hyphens"),
            ("file", self.file, FILE.fullmatch(self.file), "a file name without folders"),
            ("url", self.url, self.url.startswith("https://"), "an https address"),
            ("sha256", self.sha256, self.sha256 is None or SHA256.fullmatch(self.sha256), "64 hexadecimal digits"),
            ("size_bytes", self.size_bytes, self.size_bytes is None or self.size_bytes > 0, "a positive length"),
            ("url", self.url, not self.pinned or self.revision in self.url, f"an address at {self.revision}"),
        )
        provides = [item for item in self.provides if item not in PROVIDES]
        checks = (*checks, ("provides", provides, not provides, f"some of {', '.join(PROVIDES)}"))
        for key, value, good, expected in checks:
            if not good:
                raise _bad(self.name, f"{key} is {value!r}; expected {expected}")


def catalogue() -> dict[str, Trace]:
    """Return every public trace by name, in the order of the catalogue.

    >>> list(catalogue())[0]
    'mooncake-conversation'
    """
    return parse_catalogue(CATALOGUE.read_text(encoding="utf-8"))


def find_trace(name: str) -> Trace:
    """Return one trace of the catalogue.

    >>> find_trace("azure-2023-conversation").licence
    'CC-BY-4.0'
    """
    known = catalogue()
    if name not in known:
        raise unknown("trace", name, known)
    return known[name]


def parse_catalogue(text: str) -> dict[str, Trace]:
    r"""Read a catalogue in TOML; a key that is unknown, missing or of another type is an error.

    >>> parse_catalogue('[a]\nurl = 1')
    Traceback (most recent call last):
    lodestar.data.errors.ConfigError: trace catalogue, entry 'a': url is 1; expected text. Correct the entry
    """
    try:
        entries = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"trace catalogue: {error}; expected TOML. Correct the file") from error
    return {name: _trace(name, entry) for name, entry in entries.items()}


KINDS: Final[Mapping[str, type]] = {"provides": list, "size_bytes": int}
KEYS: Final = tuple(known.name for known in fields(Trace) if known.name != "name")
NEEDED: Final = ("what", "source", "revision", "licence", "url", "file")


def _trace(name: str, entry: object) -> Trace:
    if not isinstance(entry, dict):
        raise _bad(name, f"is {entry!r}; expected a table")
    for key, value in entry.items():
        if key not in KEYS:
            raise _bad(name, str(unknown("key", key, KEYS)))
        kind = KINDS.get(key, str)
        if not isinstance(value, kind) or isinstance(value, bool):
            expected = {list: "a list", int: "a whole number"}.get(kind, "text")
            raise _bad(name, f"{key} is {value!r}; expected {expected}")
    missing = [key for key in NEEDED if key not in entry]
    if missing:
        raise _bad(name, f"{missing[0]} is missing; expected {', '.join(NEEDED)}")
    return Trace(name=name, **{**entry, "provides": tuple(entry.get("provides", ()))})


def _bad(name: str, what: str) -> ConfigError:
    return ConfigError(f"trace catalogue, entry {name!r}: {what}. Correct the entry")
