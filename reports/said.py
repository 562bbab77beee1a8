"""Sentences that hold of several things, each said once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["said_of", "said_once", "sentence"]


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
    """Begin with a capital and end with a full stop.

    >>> sentence("the slope"), sentence("Done.")
    ('The slope.', 'Done.')
    """
    return f"{said[:1].upper()}{said[1:].rstrip('.')}."
