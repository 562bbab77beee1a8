"""What every row must satisfy whatever its format: the first rule that a row breaks is its reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from typing import Final, NamedTuple

import polars as pl

from lodestar.data import schema as s
from lodestar.data.reading import LINE, RECORD, Reading, no_rejects, rejects_of
from lodestar.data.reasons import Reason
from lodestar.data.storing.candidate_checks import NOT_KNOWN, RATIO_TOLERANCE, candidate_rejects

__all__ = ["checked"]

STATUSES: Final = ("ok", *s.CUT_OFF, "error")
DAY_MS: Final = 86_400_000.0
FASTEST_TOKEN_MS: Final = 0.05  # 20,000 tokens/s for one request: no engine decodes like this
LATEST_S: Final = 1e11  # the year 5138; milliseconds since 1970 lie beyond it
ROUNDING_MS: Final = 1.0  # logs in whole milliseconds round each latency on its own
DURATIONS: Final = (*s.OUTCOMES_LATENCIES, *s.PHASES, s.SNAPSHOT_AGE_MS)
NUMBERS: Final = (s.ARRIVED_AT_S, s.PROMPT_TOKENS, s.OUTPUT_TOKENS, s.CACHED_TOKENS, *DURATIONS)


class Rule(NamedTuple):
    """What breaks it, why that is wrong, and the column whose value the complaint shows."""

    broken: pl.Expr
    reason: Reason
    column: str
    expected: str


def checked(reading: Reading, named: bool = False) -> Reading:
    """Move the rows and samples that break a rule to the rejects, with their candidates left out.

    `named` tells that an earlier part of the source names its requests.
    """
    named |= reading.rows[s.REQUEST_ID].null_count() < len(reading.rows)
    rules = _row_rules(named, reading.clock is not None)
    bad = [_broken(reading.rows, (*rules, _late(reading.zero_s))), _broken(reading.samples, _sample_rules())]
    sound, candidates = reading.rows, reading.candidates
    if len(bad[0]):
        # Without their candidates too, since a row is refused once.
        sound, candidates = (
            each.join(bad[0], on=LINE, how="anti", maintain_order="left") for each in (sound, candidates)
        )
    bad.append(candidate_rejects(sound, candidates))
    if not any(map(len, bad)):
        return reading
    rejects = pl.concat(bad)
    return replace(
        reading,
        rows=reading.rows.join(rejects, on=LINE, how="anti", maintain_order="left"),
        candidates=reading.candidates.join(rejects, on=LINE, how="anti", maintain_order="left"),
        samples=reading.samples.join(rejects, on=LINE, how="anti", maintain_order="left"),
        rejects=pl.concat([reading.rejects, rejects]),
    )


def _broken(frame: pl.DataFrame, rules: Iterable[Rule]) -> pl.DataFrame:
    """Return the rejects of a frame: for each row the first rule that it breaks."""
    # Columns that are all NULL, as most are in most formats, can break nothing.
    told = [
        rule for rule in rules if rule.expected.startswith("is missing") or frame[rule.column].null_count() < len(frame)
    ]
    if frame.is_empty() or not told:
        return no_rejects()
    found = frame.select(rule.broken.any().fill_null(False).alias(str(k)) for k, rule in enumerate(told)).row(0)
    parts, left = [no_rejects()], frame
    for rule in (rule for rule, any_broken in zip(told, found, strict=True) if any_broken):
        hit = left.filter(rule.broken)
        left = left.filter(~rule.broken.fill_null(False))
        parts.append(rejects_of(hit[LINE], rule.reason, _details(hit, rule), record=hit[RECORD]))
    return pl.concat(parts)


def _details(hit: pl.DataFrame, rule: Rule) -> list[str]:
    if rule.expected.startswith("is missing"):
        return [f"{rule.column} {rule.expected}"] * len(hit)
    values = hit[rule.column].to_list()
    shown = (f"{value:g}" if isinstance(value, float) else str(value)[:80] for value in values)
    return [f"{rule.column} is {value}, {rule.expected}" for value in shown]


@cache
def _row_rules(named: bool, timed: bool) -> tuple[Rule, ...]:
    return tuple(_rules(named, timed))


def _rules(named: bool, timed: bool) -> Iterator[Rule]:
    for name in NUMBERS:
        yield Rule(pl.col(name) == NOT_KNOWN, Reason.SENTINEL, name, "which stands for a value that is not known")
    for name in (s.ARRIVED_AT_S, *DURATIONS):
        yield Rule(~pl.col(name).is_finite(), Reason.NOT_FINITE, name, "expected a finite number")
    yield from _presence(named, timed)
    yield Rule(pl.col(s.PROMPT_TOKENS) <= 0, Reason.WRONG_VALUE, s.PROMPT_TOKENS, "expected 1 or more")
    for name in (s.OUTPUT_TOKENS, s.CACHED_TOKENS):
        yield Rule(pl.col(name) < 0, Reason.NEGATIVE_COUNT, name, "expected 0 or more")
    over = pl.col(s.CACHED_TOKENS) > pl.col(s.PROMPT_TOKENS)
    yield Rule(over, Reason.WRONG_VALUE, s.CACHED_TOKENS, f"expected no more than {s.PROMPT_TOKENS}")
    no_id = pl.col(s.BLOCK_IDS).list.eval(pl.element().is_null()).list.any()
    yield Rule(no_id, Reason.WRONG_TYPE, s.BLOCK_IDS, "expected 64-bit integers")
    yield Rule(~pl.col(s.STATUS).is_in(STATUSES), Reason.WRONG_VALUE, s.STATUS, f"expected {', '.join(STATUSES)}")
    yield from _time_rules()


def _presence(named: bool, timed: bool) -> Iterator[Rule]:
    yield Rule(pl.col(s.PROMPT_TOKENS).is_null(), Reason.MISSING, s.PROMPT_TOKENS, "is missing")
    alone = "is missing, though other rows have it"
    if timed:
        yield Rule(pl.col(s.ARRIVED_AT_S).is_null(), Reason.MISSING, s.ARRIVED_AT_S, alone)
    if named:
        yield Rule(pl.col(s.REQUEST_ID).is_null(), Reason.MISSING, s.REQUEST_ID, alone)


def _late(zero_s: float) -> Rule:
    late = (pl.col(s.ARRIVED_AT_S) + zero_s).abs() > LATEST_S
    return Rule(late, Reason.OUT_OF_UNIT, s.ARRIVED_AT_S, "expected seconds")


def _time_rules() -> Iterator[Rule]:
    for name in DURATIONS:
        yield Rule(pl.col(name) < 0, Reason.NEGATIVE_LATENCY, name, "expected 0 or more")
        yield Rule(pl.col(name) > DAY_MS, Reason.OUT_OF_UNIT, name, "expected less than a day in milliseconds")
    instant = (pl.col(s.TPOT_MS) > 0) & (pl.col(s.TPOT_MS) < FASTEST_TOKEN_MS)
    yield Rule(instant, Reason.OUT_OF_UNIT, s.TPOT_MS, "too fast for milliseconds; are these seconds?")
    each = pl.col(s.E2E_MS) / pl.col(s.OUTPUT_TOKENS)
    instant = (pl.col(s.OUTPUT_TOKENS) > 1) & (each > 0) & (each < FASTEST_TOKEN_MS)
    yield Rule(
        instant, Reason.OUT_OF_UNIT, s.E2E_MS, "too fast for its output tokens in milliseconds; are these seconds?"
    )
    early = pl.col(s.E2E_MS) < pl.col(s.TTFT_MS) - ROUNDING_MS
    yield Rule(early, Reason.BACKWARDS, s.E2E_MS, f"before its first token: {s.TTFT_MS} is larger")


@cache
def _sample_rules() -> tuple[Rule, ...]:
    return tuple(_of_samples())


def _of_samples() -> Iterator[Rule]:
    yield Rule(pl.col(s.SAMPLED_AT_S).is_null(), Reason.MISSING, s.SAMPLED_AT_S, "is missing")
    for name in (s.SAMPLED_AT_S, *s.SAMPLE_FIELDS):
        yield Rule(pl.col(name) == NOT_KNOWN, Reason.SENTINEL, name, "which stands for a value that is not known")
        yield Rule(~pl.col(name).is_finite(), Reason.NOT_FINITE, name, "expected a finite number")
    for name in (s.KV_USAGE_RATIO, s.HIT_RATIO):
        outside = ~pl.col(name).is_between(0, 1 + RATIO_TOLERANCE)
        yield Rule(outside, Reason.OUT_OF_UNIT, name, "expected 0 to 1")
    for name in s.SAMPLE_FIELDS:
        yield Rule(pl.col(name) < 0, Reason.NEGATIVE_COUNT, name, "expected 0 or more")
