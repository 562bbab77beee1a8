"""What the candidates of a decision must satisfy: among themselves, and with the instance that was chosen."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lodestar.data import schema as s
from lodestar.data.log import Floats, Ints
from lodestar.data.reading import LINE, no_rejects, rejects_of
from lodestar.data.reasons import Reason

__all__ = ["NOT_KNOWN", "RATIO_TOLERANCE", "candidate_rejects"]

PROBABILITY_TOLERANCE: Final = 1e-6
RATIO_TOLERANCE: Final = 1e-6  # an engine's own arithmetic may end a hair above 1
NOT_KNOWN: Final = -9999  # what gateways write where they have nothing to write
COUNTERS: Final = (
    s.INFLIGHT_REQUESTS,
    s.RUNNING_REQUESTS,
    s.WAITING_REQUESTS,
    s.INFLIGHT_PREFILL_REQUESTS,
    s.INFLIGHT_DECODE_REQUESTS,
)

Bools = NDArray[np.bool_]


def candidate_rejects(rows: pl.DataFrame, candidates: pl.DataFrame) -> pl.DataFrame:
    """Return the rejects of the rows whose candidates break a rule; see `CANDIDATE_COLUMNS`."""
    if candidates.is_empty():
        return no_rejects()
    if not candidates[LINE].is_sorted():
        candidates = candidates.sort(LINE, maintain_order=True)
    parts = [*_value_rejects(candidates), *_decision_rejects(rows, candidates)]
    return pl.concat([no_rejects(), *parts]).unique(LINE, keep="first", maintain_order=True)


def _value_rejects(candidates: pl.DataFrame) -> Iterator[pl.DataFrame]:
    told = [rule for rule in _value_rules() if candidates[rule[0]].null_count() < len(candidates)]
    found = (
        candidates.select(broken.any().alias(str(k)) for k, (_, broken, _, _) in enumerate(told)).row(0) if told else ()
    )
    for (name, broken, reason, expected), any_broken in zip(told, found, strict=True):
        if any_broken:
            bad = candidates.filter(broken).unique(LINE, keep="first", maintain_order=True)
            shown = zip(bad[s.INSTANCE], bad[name], strict=True)
            details = [f"{name} of candidate {instance} is {value:g}, {expected}" for instance, value in shown]
            yield rejects_of(bad[LINE], reason, details)


@cache
def _value_rules() -> tuple[tuple[str, pl.Expr, Reason, str], ...]:
    return tuple(_rules())


def _rules() -> Iterator[tuple[str, pl.Expr, Reason, str]]:
    fields = (*s.SNAPSHOT_FIELDS, s.SCORE, s.PROBABILITY)
    for name in fields:
        yield name, pl.col(name) == NOT_KNOWN, Reason.SENTINEL, "which stands for a value that is not known"
        yield name, ~pl.col(name).is_finite(), Reason.NOT_FINITE, "expected a finite number"
    for name, most in ((s.HIT_RATIO, 1.0), (s.KV_USAGE_RATIO, 1 + RATIO_TOLERANCE), (s.PROBABILITY, 1.0)):
        yield name, ~pl.col(name).is_between(0, most), Reason.OUT_OF_UNIT, "expected 0 to 1"
    for name in COUNTERS:
        yield name, pl.col(name) < 0, Reason.NEGATIVE_COUNT, "expected 0 or more"


def _decision_rejects(rows: pl.DataFrame, candidates: pl.DataFrame) -> Iterator[pl.DataFrame]:
    line = candidates[LINE].to_numpy()
    start = np.concatenate([[0], np.flatnonzero(np.diff(line)) + 1])
    lines, count = line[start], np.diff(np.append(start, len(line)))
    code, chosen = _codes(rows, candidates, lines)
    twice = _twice(code, start, count)
    yield rejects_of(lines[twice].tolist(), Reason.CANDIDATE_TWICE, ["an instance is listed twice"] * int(twice.sum()))
    present = np.logical_or.reduceat(code == np.repeat(chosen, count), start)
    absent = (chosen >= 0) & ~present
    told = "the chosen instance is not among the candidates"
    yield rejects_of(lines[absent].tolist(), Reason.CHOSEN_UNKNOWN, [told] * int(absent.sum()))
    yield from _probability_rejects(candidates[s.PROBABILITY], lines, start, count)


def _codes(rows: pl.DataFrame, candidates: pl.DataFrame, lines: Ints) -> tuple[Ints, Ints]:
    """Number the instances of the candidates, and the chosen one of each line, -1 where none is."""
    chosen = pl.DataFrame({LINE: lines}).join(rows.select(LINE, s.INSTANCE), on=LINE, how="left", maintain_order="left")
    names = pl.concat([candidates[s.INSTANCE], chosen[s.INSTANCE]]).cast(pl.Categorical).to_physical()
    number = names.cast(pl.Int64).fill_null(-1).to_numpy()
    return number[: len(candidates)], number[len(candidates) :]


def _twice(code: Ints, start: Ints, count: Ints) -> Bools:
    """Tell which lines list an instance twice."""
    if code.max(initial=0) < 63:
        seen = np.bitwise_or.reduceat(np.left_shift(np.int64(1), code), start)
        distinct = np.bitwise_count(seen).astype(np.int64)
    else:
        line = np.repeat(np.arange(len(start)), count)
        order = np.lexsort((code, line))
        first = np.ones(len(code), dtype=np.int64)
        first[1:] = (np.diff(code[order]) != 0) | (np.diff(line[order]) != 0)
        distinct = np.add.reduceat(first, start)
    return distinct < count


def _probability_rejects(probability: pl.Series, lines: Ints, start: Ints, count: Ints) -> Iterator[pl.DataFrame]:
    if probability.null_count() == len(probability):
        return
    values: Floats = probability.to_numpy()
    known = np.add.reduceat((~np.isnan(values)).astype(np.int64), start)
    some = (known > 0) & (known < count)
    told = f"{s.PROBABILITY} is given for some candidates only"
    yield rejects_of(lines[some].tolist(), Reason.MISSING, [told] * int(some.sum()))
    total = np.add.reduceat(np.nan_to_num(values), start)
    off = (known == count) & (np.abs(total - 1) > PROBABILITY_TOLERANCE)
    details = [f"the probabilities sum to {value:.6g}, expected 1" for value in total[off]]
    yield rejects_of(lines[off].tolist(), Reason.PROBABILITY_SUM, details)
