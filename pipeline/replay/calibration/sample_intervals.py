"""Engine samples as intervals: what an engine did between two samples, and whether it was busy throughout."""

from __future__ import annotations

from typing import Final

import polars as pl

from lodestar.data import schema as s

__all__ = ["WHY", "intervals_of", "left_out"]

WHY: Final = "why"  # an interval is not used; null where it is
FULL: Final = 0.98  # from here on, an engine may preempt
#: vLLM tells the hit rate of its latest requests, as many as this.
HIT_WINDOW: Final = 1000
_OWNERS: Final = (s.DATASET, s.SOURCE_ID, s.INSTANCE_INDEX)


def intervals_of(samples: pl.DataFrame, prompt_tokens_mean: float) -> pl.DataFrame:
    """Return an interval between two samples of an engine as a row, with what was done in it.

    Rates are means over the interval that ends with their sample, and count a prompt as a whole when its prefill ends,
    cached tokens included; running requests are those at the two ends. Columns: `seconds`, `running` (mean of both
    ends), `usage_ratio`, `usage_gain_ratio`, `generated`, `prompts` begun, `hit` (share of prompt tokens found in the
    cache), `steady` (the same requests ran throughout) and `why` it cannot be used.

    An engine was busy throughout if fewer prompts began than were running at the end: some of those at the start then
    ran all the time, and those at both ends say how many ran in between. So they do if requests waited at both ends.

    >>> samples = pl.DataFrame(
    ...     {
    ...         "instance_index": [0, 0, 0],
    ...         "sampled_at_s": [0.0, 10.0, 20.0],
    ...         "running_requests": [2.0, 2.0, 1.0],
    ...         "prefill_tokens_per_s": [0.0, 0.0, 100.0],
    ...         "decode_tokens_per_s": [50.0, 60.0, 40.0],
    ...     }
    ... )
    >>> intervals_of(samples, prompt_tokens_mean=500.0).select("seconds", "generated", "prompts", "why").rows()
    [(10.0, 600.0, 0.0, None), (10.0, 400.0, 2.0, 'saw too many requests come and go to know what ran')]
    """
    absent = [pl.lit(None, pl.Float64).alias(name) for name in s.SAMPLE_FIELDS if name not in samples.columns]
    owners: list[str] = [name for name in _OWNERS if name in samples.columns]
    ordered = samples.with_columns(absent).sort(*owners, s.SAMPLED_AT_S)
    between = _between(ordered, owners).drop_nulls("seconds").filter(pl.col("seconds") > 0)
    return between.with_columns(_hit(prompt_tokens_mean, owners)).with_columns(_why(prompt_tokens_mean, owners))


def _between(samples: pl.DataFrame, owners: list[str]) -> pl.DataFrame:
    def before(name: str) -> pl.Expr:
        return pl.col(name).shift().over(owners)

    seconds = pl.col(s.SAMPLED_AT_S) - before(s.SAMPLED_AT_S)
    running, usage = pl.col(s.RUNNING_REQUESTS), pl.col(s.KV_USAGE_RATIO)
    return samples.select(
        *owners,
        seconds.alias("seconds"),
        before(s.RUNNING_REQUESTS).alias("running_before"),
        running.alias("running_after"),
        ((running + before(s.RUNNING_REQUESTS)) / 2).alias("running"),
        pl.min_horizontal(pl.col(s.WAITING_REQUESTS), before(s.WAITING_REQUESTS)).fill_null(0).alias("waiting"),
        ((usage + before(s.KV_USAGE_RATIO)) / 2).alias("usage_ratio"),
        (usage - before(s.KV_USAGE_RATIO)).alias("usage_gain_ratio"),
        pl.max_horizontal(usage, before(s.KV_USAGE_RATIO)).alias("usage_peak_ratio"),
        (pl.col(s.DECODE_TOKENS_PER_S) * seconds).alias("generated"),
        (pl.col(s.PREFILL_TOKENS_PER_S) * seconds).alias("prompt_tokens"),
        (pl.col(s.PREEMPTIONS) - before(s.PREEMPTIONS)).alias("preempted"),
        (pl.col(s.PREFIX_HIT_TOKENS) - before(s.PREFIX_HIT_TOKENS)).alias("hit_tokens"),
        (pl.col(s.PREFIX_QUERIED_TOKENS) - before(s.PREFIX_QUERIED_TOKENS)).alias("queried_tokens"),
        pl.col(s.HIT_RATIO).alias("hit_after"),
        before(s.HIT_RATIO).alias("hit_before"),
    )


def _hit(prompt_tokens_mean: float, owners: list[str]) -> pl.Expr:
    """Return the share of an interval's prompt tokens found in the cache: by counters, else by the engine's hit rate.

    The hit rate is of all requests since the start, or of the latest thousand, so that of the interval is what moved
    it. A log that begins late knows too few requests before, and the result is then nearer to the rate itself.
    """
    seen = pl.col("prompt_tokens").cum_sum().shift(fill_value=0.0).over(owners).clip(0, HIT_WINDOW * prompt_tokens_mean)
    moved = pl.col("hit_after") + (pl.col("hit_after") - pl.col("hit_before")) * seen / pl.col("prompt_tokens")
    counted = pl.col("hit_tokens") / pl.col("queried_tokens")
    told = pl.when(pl.col("queried_tokens") > 0).then(counted).when(pl.col("prompt_tokens") > 0).then(moved)
    return told.clip(0, 1).alias("hit")


def _why(prompt_tokens_mean: float, owners: list[str]) -> list[pl.Expr]:
    prompts = pl.col("prompt_tokens") / prompt_tokens_mean
    before, after = pl.col("running_before"), pl.col("running_after")
    told = pl.all_horizontal(pl.col("prompt_tokens", "generated", "running").is_not_null())
    full = (pl.col("usage_peak_ratio") >= FULL).fill_null(False) & pl.col("preempted").is_null()
    why = (
        pl.when(~told)
        .then(pl.lit("do not say what ran or how fast"))
        .when(pl.col("seconds") > 1.5 * pl.col("seconds").median().over(owners))
        .then(pl.lit("are longer than the others, which their rates may not cover"))
        .when((before < 1) | (after < 1) | (pl.col("generated") <= 0))
        .then(pl.lit("begin or end idle"))
        .when(full | (pl.col("preempted").fill_null(0) != 0))
        .then(pl.lit("may hold preempted work, which no rate counts"))
        .when((prompts.ceil() >= after) & (pl.col("waiting") < 1))
        .then(pl.lit("saw too many requests come and go to know what ran"))
    )
    steady = (pl.col("prompt_tokens") == 0) & (before == after) & (after >= 1)
    return [prompts.alias("prompts"), steady.alias("steady"), why.alias(WHY)]


def left_out(intervals: pl.DataFrame) -> list[str]:
    """Say how many intervals are not used, and why."""
    counted = intervals.drop_nulls(WHY).group_by(WHY).len().sort("len", WHY, descending=[True, False])
    return [f"{count} of {len(intervals)} intervals between samples {why}" for why, count in counted.iter_rows()]
