"""Policies against each other on the same requests and seeds: differences to the baseline, and ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.estimation.intervals.ranks import rank_probabilities
from lodestar.pipeline.estimation.intervals.replayed import replayed_intervals
from lodestar.pipeline.estimation.resampling import Resamples, resampled_means, resampled_quantiles

__all__ = ["TailComparison", "compared_means", "compared_tails"]

Floats = NDArray[np.float64]

_TAIL: Final = 0.99


class TailComparison(NamedTuple):
    """Differences of P99 by policy, and one row of ranks a policy."""

    differences: dict[str, dict[str, Any]]
    ranks: list[dict[str, Any]]


def compared_means(values: Mapping[str, Floats], baseline: str, drawn: Resamples) -> dict[str, dict[str, Any]]:
    """Return each policy's mean difference to the baseline, with intervals that hold for all policies at once.

    What both policies share cancels, request by request and seed by seed, so that the interval is much narrower than
    that of two independent means. A request counts where it has a value under both. One seed has no interval.

    Args:
        values: policy → seeds × requests, NaN where there is none.
        baseline: one of them.
        drawn: the same draws for all.

    >>> values = {"a": np.array([[11.0, 21.0], [31.0, 41.0]]), "b": np.array([[10.0, 20.0], [30.0, 40.0]])}
    >>> compared_means(values, "b", Resamples(np.zeros((9, 2), int), np.zeros((9, 1), int), 2, 2))
    {'a': {'mean': 1.0, 'ci95': [1.0, 1.0]}}
    """
    pairs = {name: each - values[baseline] for name, each in values.items() if name != baseline}
    found = {name: {"mean": None, "ci95": None} for name in pairs}
    there = {name: pair for name, pair in pairs.items() if not np.isnan(pair).all()}
    if not there:
        return found
    means = np.array([np.nanmean(pair) for pair in there.values()])
    in_draws = np.stack([resampled_means(pair, drawn) for pair in there.values()])
    intervals = replayed_intervals(means, in_draws, drawn)
    return found | {
        name: {"mean": float(mean), "ci95": interval and list(interval)}
        for name, mean, interval in zip(there, means, intervals, strict=True)
    }


def compared_tails(values: Mapping[str, Floats], baseline: str, drawn: Resamples) -> TailComparison:
    """Return differences of P99 to the baseline, as `compared_means` does, and how probable each rank is.

    P99 is the least value with 99 % of all seeds' requests at or below it. Both it and the ranks compare the same
    requests for all: those that have a value under every policy in that seed. Of one seed there is neither an interval
    nor a rank: how the next would order them, it does not tell.
    """
    served = ~np.logical_or.reduce([np.isnan(each) for each in values.values()])
    if len(values) < 2 or not served.any():
        return TailComparison({name: {"value": None, "ci95": None} for name in values if name != baseline}, [])
    common = {name: np.where(served, each, np.nan) for name, each in values.items()}
    tails = dict(zip(common, resampled_quantiles(list(common.values()), _TAIL, drawn), strict=True))
    now = {name: np.quantile(each[served], _TAIL, method="inverted_cdf") for name, each in common.items()}
    others = [name for name in values if name != baseline]
    differences = np.array([now[name] - now[baseline] for name in others])
    in_draws = np.stack([tails[name] - tails[baseline] for name in others])
    intervals = replayed_intervals(differences, in_draws, drawn)
    return TailComparison(
        {
            name: {"value": float(value), "ci95": interval and list(interval)}
            for name, value, interval in zip(others, differences, intervals, strict=True)
        },
        _ranks(common, tails, drawn) if drawn.seeds.shape[1] > 1 else [],
    )


def _ranks(values: Mapping[str, Floats], tails: Mapping[str, Floats], drawn: Resamples) -> list[dict[str, Any]]:
    by_mean = rank_probabilities(np.stack([resampled_means(each, drawn) for each in values.values()]))
    by_tail = rank_probabilities(np.stack(list(tails.values())))
    return [
        {"policy": name, "by_ttft_mean": by_mean[i].tolist(), "first_by_ttft_p99": float(by_tail[i, 0])}
        for i, name in enumerate(values)
    ]
