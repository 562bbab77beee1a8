"""Samples of all parts that a format's reader gives, and logs that are broken in every place, for tests."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import strategies as st

from lodestar.data.reading import SAMPLE_COLUMNS, Format, empty
from lodestar.data.sources.source import from_bytes, sources_of
from lodestar.data.storing.checks import checked

HOSTILE = (
    None,
    True,
    -1,
    0,
    1.5,
    1e308,
    -9999,
    10**30,
    2**64 - 1,
    "",
    "x",
    "-1",
    "NaN",
    [],
    [None],
    {},
    {"a": {}},
    [[[]]],
)


def samples_of(format: Format, log: str | Path, name: str = "log") -> pl.DataFrame:
    """Read the samples of a source, after the checks that every sample passes."""
    if isinstance(log, str):
        parts = list(format.read(from_bytes(log.encode(), name)))
    else:
        with sources_of([log]) as sources:
            parts = list(format.read(sources[0]))
    return pl.concat([empty(SAMPLE_COLUMNS), *(checked(part).samples for part in parts)])


@st.composite
def broken(draw: st.DrawFn, record: Any) -> Any:
    """Put something hostile in one place of a record, or take the place away."""
    changed = copy.deepcopy(record)
    holder, key = draw(st.sampled_from(list(_places(changed))))
    if draw(st.booleans()):
        holder[key] = draw(st.sampled_from(HOSTILE))
    else:
        del holder[key]
    return changed


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inner:
        yield value, key
        yield from _places(child)
