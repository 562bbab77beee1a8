"""Logs broken in every way that logs are broken in, as hypothesis strategies."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

from hypothesis import strategies as st

from engine_logs import broken

__all__ = ["FRAGMENTS", "mutated"]

FRAGMENTS: Final = (
    *(b"\0", b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", "\u2028\u0085\u00a0\U0001f600".encode(), b"\xef\xbb\xbf", b"\x1a"),
    *(b"NaN", b"nan", b"-Infinity", b"inf", b"1e308", b"-1e308", b"1e999", b"1e-400", b"-0.0", b"-9999", b"-1", b"0"),
    *(b"0.5", b"1.5e3", b"1" + b"0" * 30, b"9007199254740993", b"9223372036854775808", b"-9223372036854775808"),
    *(b"1" * 400, b"1_000", b"0x10", "\u0663".encode(), b"true", b"null", b"{}", b"[]", b"[[]]", b'[{"a":[]}]', b'""'),
    *(b'"\\ud800"', b'"\\u0000"', b'"\\ud83d\\ude00"', b'"x', b"'", b'"', b"\\", b",", b";", b"@", b":", b"{", b"]"),
    *(
        b"[" * 2000,
        b'{"a":' * 2000,
        b'"' + b"x" * 70_000 + b'"',
        b'"a":1,"a":2,',
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n \n",
        b"\t",
    ),
    *(b"1970-01-01 00:00:00", b"0001-01-01T00:00:00Z", b"9999-12-31 23:59:59.9", b"2024-02-30 00:00:00", b"1.7.2024"),
)
#: What a value looks like in JSON, in CSV and in a text of keys and values.
TOKEN: Final = re.compile(rb'"(?:[^"\\\n]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|\b[A-Za-z_]\w*\b|\{\}|\[\]')
Step = Callable[[st.DrawFn, bytes], bytes]


def _at(draw: st.DrawFn, content: bytes) -> int:
    return draw(st.integers(0, len(content)))


def _flip(draw: st.DrawFn, content: bytes) -> bytes:
    at = _at(draw, content)
    return content[:at] + bytes([draw(st.integers(0, 255))]) + content[at + 1 :]


def _delete(draw: st.DrawFn, content: bytes) -> bytes:
    at = _at(draw, content)
    return content[:at] + content[at + draw(st.integers(1, 60)) :]


def _insert(draw: st.DrawFn, content: bytes) -> bytes:
    at = _at(draw, content)
    return content[:at] + draw(st.sampled_from(FRAGMENTS)) + content[at:]


def _truncate(draw: st.DrawFn, content: bytes) -> bytes:
    return content[: _at(draw, content)]


def _token(draw: st.DrawFn, content: bytes) -> re.Match[bytes] | None:
    found = list(TOKEN.finditer(content))
    return draw(st.sampled_from(found)) if found else None


def _replace(draw: st.DrawFn, content: bytes) -> bytes:
    """Put another kind of value where one stands."""
    token = _token(draw, content)
    if token is None:
        return content
    return content[: token.start()] + draw(st.sampled_from(FRAGMENTS)) + content[token.end() :]


def _swap(draw: st.DrawFn, content: bytes) -> bytes:
    """Let two values change places."""
    one, other = _token(draw, content), _token(draw, content)
    if one is None or other is None or one.end() > other.start():
        return content
    between = content[one.end() : other.start()]
    return content[: one.start()] + other[0] + between + one[0] + content[other.end() :]


def _lines(draw: st.DrawFn, content: bytes) -> bytes:
    """Double, drop, cut, empty, or move a line."""
    lines = content.split(b"\n")
    at, to = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
    change = draw(st.sampled_from(["double", "drop", "cut", "empty", "move"]))
    line = lines[at] if change == "double" else lines.pop(at)
    if change == "cut":
        line = line[: _at(draw, line)]
    if change != "drop":
        lines.insert(to if change in ("double", "move") else at, b"" if change == "empty" else line)
    return b"\n".join(lines)


def _ends(draw: st.DrawFn, content: bytes) -> bytes:
    """Write the ends of the lines, or of the file, in another way."""
    endings = [
        lambda: content.replace(b"\n", b"\r\n"),
        lambda: content.replace(b"\n", b"\n\n"),
        lambda: content.replace(b"\n", b"\r"),
        lambda: content.rstrip(b"\n"),
        lambda: b"\xef\xbb\xbf" + content,
        lambda: b"\n \n" + content,
        lambda: content + content,
        lambda: content.decode("latin-1").encode("utf-16"),
    ]
    return draw(st.sampled_from(endings))()


def _record(draw: st.DrawFn, content: bytes) -> bytes:
    """Break one to three places of one JSON record, whatever stands there."""
    lines = content.split(b"\n")
    at = draw(st.integers(0, len(lines) - 1))
    for whole, text in ((False, lines[at]), (True, content)):
        record = _decoded(text)
        for _ in range(draw(st.integers(1, 3)) if record else 0):
            record = draw(broken(record)) or record
        if record:
            changed = json.dumps(record).encode()
            return changed if whole else b"\n".join([*lines[:at], changed, *lines[at + 1 :]])
    return content


def _decoded(text: bytes) -> Any:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict | list) else None


STEPS: Final[tuple[Step, ...]] = (_flip, _delete, _insert, _truncate, _replace, _replace, _swap, _lines, _ends, _record)


@st.composite
def mutated(draw: st.DrawFn, contents: tuple[bytes, ...]) -> bytes:
    """Take one of these logs, and break it in one to five ways."""
    content = draw(st.sampled_from(contents))
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=5)):
        content = step(draw, content)
    return content
