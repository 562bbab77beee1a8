"""Sentences that hold of several things, each said once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["said_of", "said_once", "second_line", "sentence"]


def said_once(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return sentence → what it is said of, from pairs of the thing and the sentence, in order.

    >>> said_once([("a", "is late"), ("b", "is late"), ("b", "is new")])
    {'is late': ['a', 'b'], 'is new': ['b']}
    """
    found: dict[str, dict[str, None]] = {}
    for thing, said in pairs:
        found.setdefault(said, {})[thing] = None
    return {said: list(things) for said, things in found.items()}


def said_of(things: Sequence[str], whole: Sequence[str], every: str = "") -> str:
    """Name things, or, where they are all of several, say so.

    >>> said_of(["a", "b"], ["a", "b", "c"]), said_of(["a", "b"], ["b", "a"], "every policy"), said_of(["a"], ["a"])
    ('a, b', 'every policy', 'a')
    """
    is_all = bool(every) and len(whole) > 1 and set(things) == set(whole)
    return every if is_all else ", ".join(things)


def sentence(said: str) -> str:
    """Begin with a capital and end with a full stop; the name of a file, a gate or a setting stays as it is written.

    >>> sentence("the slope"), sentence("Done."), sentence("my_router.py:Mine: no estimate")
    ('The slope.', 'Done.', 'my_router.py:Mine: no estimate.')
    """
    first = said.partition(" ")[0].rstrip(".,:;")
    begun = said if any(mark in first for mark in "_./=:") else f"{said[:1].upper()}{said[1:]}"
    return f"{begun.rstrip('.')}."


def second_line(intervals: str) -> str:
    """Say what stands below each value, from what a summary says of its intervals; or that there are none, and why.

    >>> second_line("95 % from 1000 draws"), second_line("no intervals: one seed tells nothing")
    ('Second line: 95 % from 1000 draws.', 'No intervals: one seed tells nothing.')
    """
    return sentence(intervals) if intervals.startswith("no intervals") else f"Second line: {intervals}."
