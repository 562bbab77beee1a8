"""What every row must satisfy whatever its format: the first rule that a row breaks is its reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import polars as pl

from lodestar.data import schema as s
from lodestar.data.reading import LINE, Reading

__all__ = ["checked"]

PROBABILITY_TOLERANCE: Final = 1e-6
RATIO_TOLERANCE: Final = 1e-6  # an engine's own arithmetic may end a hair above 1
STATUSES: Final = ("ok", "cancelled", "error")
COUNTERS: Final = (
    s.INFLIGHT_REQUESTS,
    s.RUNNING_REQUESTS,
    s.WAITING_REQUESTS,
    s.INFLIGHT_PREFILL_REQUESTS,
    s.INFLIGHT_DECODE_REQUESTS,
)


def checked(reading: Reading) -> Reading:
    """Move the rows that break a rule to the rejects, with their candidates left out."""
    facts = reading.rows.join(_candidate_facts(reading.candidates), on=LINE, how="left", maintain_order="left")
    # One pass over the rows of the file: the second row of a request id is the duplicate, not the first.
    rules = _row_rules()
    if reading.clock is not None:
        rules[f"{s.ARRIVED_AT_S} is missing, though other rows have it"] = pl.col(s.ARRIVED_AT_S).is_null()
    if reading.rows[s.REQUEST_ID].is_not_null().any():
        rules[f"{s.REQUEST_ID} is missing, though other rows have it"] = pl.col(s.REQUEST_ID).is_null()
    judged = facts.with_columns(_first_broken(rules).alias("reason"))
    sound = judged.filter(pl.col("reason").is_null()).sort(LINE)
    again = sound.filter(~pl.col(s.REQUEST_ID).is_first_distinct() & pl.col(s.REQUEST_ID).is_not_null())
    doubled = again.select(LINE, pl.lit("duplicate request_id").alias("reason"))
    bad = pl.concat([judged.filter(pl.col("reason").is_not_null()).select(LINE, "reason"), doubled])
    return replace(
        reading,
        rows=reading.rows.join(bad, on=LINE, how="anti", maintain_order="left"),
        candidates=reading.candidates.join(bad, on=LINE, how="anti", maintain_order="left"),
        rejects=pl.concat([reading.rejects, bad]).sort(LINE),
    )


def _first_broken(rules: dict[str, pl.Expr]) -> pl.Expr:
    return pl.coalesce(pl.when(broken).then(pl.lit(reason)) for reason, broken in rules.items())


def _row_rules() -> dict[str, pl.Expr]:
    latencies = {f"{name} is negative": pl.col(name) < 0 for name in (*s.OUTCOMES_LATENCIES, s.SNAPSHOT_AGE_MS)}
    chosen_unknown = pl.col(s.INSTANCE).is_not_null() & ~pl.col("names").list.contains(pl.col(s.INSTANCE))
    off_one = (pl.col("probability_sum") - 1).abs() > PROBABILITY_TOLERANCE
    return {
        f"{s.PROMPT_TOKENS} is missing": pl.col(s.PROMPT_TOKENS).is_null(),
        f"{s.PROMPT_TOKENS} is not positive": pl.col(s.PROMPT_TOKENS) <= 0,
        f"{s.OUTPUT_TOKENS} is negative": pl.col(s.OUTPUT_TOKENS) < 0,
        f"{s.BLOCK_IDS} holds an id that is no 64-bit integer": pl.col(s.BLOCK_IDS)
        .list.eval(pl.element().is_null())
        .list.any(),
        **latencies,
        f"{s.STATUS} is not one of {', '.join(STATUSES)}": ~pl.col(s.STATUS).is_in(STATUSES),
        "a candidate is listed twice": pl.col("names").list.n_unique() < pl.col("names").list.len(),
        "the chosen instance is not among the candidates": chosen_unknown.fill_null(False),
        "hit_ratio is outside 0–1": pl.col("hit_outside"),
        "kv_usage_ratio is outside 0–1": pl.col("usage_outside"),
        "a counter of a candidate is negative": pl.col("counter_negative"),
        "a probability is outside 0–1": pl.col("probability_outside"),
        "probabilities are given for some candidates only": pl.col("probability_some"),
        "probabilities do not sum to 1": off_one,
    }


def _candidate_facts(candidates: pl.DataFrame) -> pl.DataFrame:
    probability = pl.col(s.PROBABILITY)
    known = probability.is_not_null()
    return candidates.group_by(LINE, maintain_order=True).agg(
        pl.col(s.INSTANCE).alias("names"),
        (~pl.col(s.HIT_RATIO).is_between(0, 1)).any().alias("hit_outside"),
        (~pl.col(s.KV_USAGE_RATIO).is_between(0, 1 + RATIO_TOLERANCE)).any().alias("usage_outside"),
        pl.any_horizontal(pl.col(name) < 0 for name in COUNTERS).any().alias("counter_negative"),
        (~probability.is_between(0, 1)).any().alias("probability_outside"),
        (known.any() & ~known.all()).alias("probability_some"),
        pl.when(known.all()).then(probability.sum()).alias("probability_sum"),
    )
