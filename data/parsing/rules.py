"""Rules of a format alone: the rows that break one are taken apart, each with its reason."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from lodestar.data.reading import LINE, no_rejects, rejects_of
from lodestar.data.reasons import Reason

__all__ = ["Broken", "taken_apart"]

#: The reason, which rows break the rule, and the sentence that says so.
Broken = tuple[Reason, pl.Expr, pl.Expr]


def taken_apart(frame: pl.DataFrame, rules: Iterable[Broken]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows that break no rule, and the rejects of the others: each for the first that it breaks.

    >>> rows = pl.DataFrame({"line": [1, 2], "a": [1, None]})
    >>> sound, bad = taken_apart(rows, [(Reason.MISSING, pl.col("a").is_null(), pl.lit("a is missing"))])
    >>> sound["line"].to_list(), bad.select("line", "reason", "detail").rows()
    ([1], [(2, 'missing-key', 'a is missing')])
    """
    bad = [no_rejects()]
    for reason, broken, detail in rules:
        if frame.select(broken.any()).item():
            hit = frame.filter(broken)
            bad.append(rejects_of(hit[LINE], reason, hit.with_columns(detail.alias("detail"))["detail"]))
            frame = frame.filter(~broken.fill_null(False))
    return frame, pl.concat(bad)
