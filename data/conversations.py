"""Conversations as numbers, in the order in which they begin."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from lodestar.data.log import Ints

__all__ = ["NO_SESSION", "joined_sessions", "numbered_sessions", "session_names", "session_numbers"]

#: Of a request that names no conversation.
NO_SESSION = -1


def numbered_sessions(session: Ints) -> Ints:
    """Number conversations anew from 0, in the order in which they begin; a request without one has none after.

    >>> numbered_sessions(np.array([7, -1, 3, 7, 9])).tolist()
    [0, -1, 1, 0, 2]
    """
    ids, first, place = np.unique(session, return_index=True, return_inverse=True)
    number = np.full(len(ids), NO_SESSION, dtype=np.int64)
    named = np.flatnonzero(ids != NO_SESSION)
    number[named[np.argsort(first[named])]] = np.arange(len(named))
    return number[place]


def session_numbers(names: pl.Series) -> Ints | None:
    """Number conversations by their names, NULL: none; None where no request names one.

    >>> session_numbers(pl.Series(["b", None, "a", "b"])).tolist()
    [0, -1, 1, 0]
    """
    every = names.drop_nulls().unique(maintain_order=True)
    if every.is_empty():
        return None
    known = pl.DataFrame({"name": every, "number": np.arange(len(every))})
    rows = pl.DataFrame({"name": names}).join(known, on="name", how="left", maintain_order="left")
    return rows["number"].fill_null(NO_SESSION).to_numpy().astype(np.int64)


def session_names(session: Ints) -> pl.Series:
    """Name conversations by their numbers.

    >>> session_names(np.array([0, -1])).to_list()
    ['0', None]
    """
    numbers = pl.Series(session)
    return numbers.set(numbers == NO_SESSION, None).cast(pl.String)


def joined_sessions(parts: Sequence[tuple[Ints | None, int]]) -> Ints | None:
    """Put the conversations of several lists of requests one after the other; no two lists share one.

    Args:
        parts: conversations of a list, and how many requests it has.
    """
    if all(session is None for session, _ in parts):
        return None
    columns, shift = [], 0
    for session, requests in parts:
        own = np.full(requests, NO_SESSION, dtype=np.int64) if session is None else session
        columns.append(np.where(own == NO_SESSION, NO_SESSION, own + shift))
        shift += int(own.max(initial=NO_SESSION)) + 1
    return np.concatenate(columns)
