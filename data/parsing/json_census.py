"""How many values of each kind a JSON text holds: a fast parser that is lenient with types is checked against it."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar.data.jit import jit

__all__ = ["Census", "census"]

BETWEEN, IN_STRING, IN_NUMBER, IN_WORD = 0, 1, 2, 3
MOST_BRACKETS: Final = 64
SPACE, QUOTE, PLUS, COMMA, MINUS, POINT, COLON, BACKSLASH = (ord(sign) for sign in ' "+,-.:\\')
ZERO, NINE, SMALL_E, LARGE_E, SMALL_N = (ord(sign) for sign in "09eEn")
OPEN_OBJECT, CLOSE_OBJECT, OPEN_LIST, CLOSE_LIST = (ord(sign) for sign in "{}[]")


class Census(NamedTuple):
    """What stands in a text.

    Attributes:
        strings: string values; keys do not count.
        string_bytes: the bytes between their quotes.
        numbers: numbers, in lists or not.
        fractions: of these, those in a list that have a point or an exponent.
        others: true, false, and words that are no JSON.
        escapes: backslashes.
        deepest: how many brackets are open at once at most.
    """

    strings: int
    string_bytes: int
    numbers: int
    fractions: int
    others: int
    escapes: int
    deepest: int


def census(content: bytes) -> Census:
    """Count the values in one or many JSON texts, in one pass.

    >>> census(b'{"a": ["x", 1.5, 2], "b": true, "c": null}')
    Census(strings=1, string_bytes=1, numbers=2, fractions=1, others=1, escapes=0, deepest=2)
    """
    return Census(*map(int, _count(np.frombuffer(content, dtype=np.uint8))))


@jit
def _count(text: NDArray[np.uint8]) -> tuple[int, int, int, int, int, int, int]:  # noqa: C901 - a scanner, in one piece
    quoted, quoted_bytes, keys, key_bytes, numbers, fractions, others, escapes, deepest = 0, 0, 0, 0, 0, 0, 0, 0, 0
    state, start, last, depth = BETWEEN, 0, 0, 0
    escaped, in_list = False, False
    lists = np.zeros(MOST_BRACKETS, dtype=np.bool_)  # which of the open brackets are lists
    for i in range(len(text)):
        c = text[i]
        if state == IN_STRING:
            if c == QUOTE and not escaped:
                state, last = BETWEEN, i - start
                quoted, quoted_bytes = quoted + 1, quoted_bytes + last
            escaped = c == BACKSLASH and not escaped
            escapes += c == BACKSLASH
        elif ZERO <= c <= NINE:
            numbers += state != IN_NUMBER
            state = IN_NUMBER
        elif c == QUOTE:
            state, start = IN_STRING, i + 1
        elif c == COMMA or c <= SPACE:
            state = BETWEEN
        elif c == COLON:  # the string before it was a key
            keys, key_bytes, state = keys + 1, key_bytes + last, BETWEEN
        elif c == MINUS and state != IN_NUMBER:
            numbers, state = numbers + 1, IN_NUMBER
        elif state == IN_NUMBER and c in (MINUS, PLUS, POINT, SMALL_E, LARGE_E):
            fractions += in_list
        elif c in (OPEN_OBJECT, OPEN_LIST):
            in_list = c == OPEN_LIST
            if depth < MOST_BRACKETS:
                lists[depth] = in_list
            depth, state = depth + 1, BETWEEN
            deepest = max(deepest, depth)
        elif c in (CLOSE_OBJECT, CLOSE_LIST):
            depth, state = depth - 1, BETWEEN
            in_list = 0 < depth <= MOST_BRACKETS and lists[depth - 1]
        else:
            others += state != IN_WORD and c != SMALL_N  # null says nothing
            state = IN_WORD
    return quoted - keys, quoted_bytes - key_bytes, numbers, fractions, others, escapes, deepest
