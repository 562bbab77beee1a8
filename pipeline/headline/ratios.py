"""How many times as fast one policy is as another, with what chance does to it.

A bootstrap draws seeds and blocks of consecutive requests, the same for all policies and, where runs are as long, for
all cells: cells whose requests were drawn under the same seed go up and down together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.estimation.intervals.block_bootstrap import expanded_interval
from lodestar.pipeline.estimation.resampling import resampled_means, resampled_quantiles, resamples
from lodestar.pipeline.headline.runs import Runs

__all__ = ["BLOCKS", "PARTS", "STATISTICS", "Level", "Levels", "interval_of", "levels", "log_ratio"]

Floats = NDArray[np.float64]

#: Consecutive requests that the bootstrap draws together are this part of a run.
BLOCKS: Final = 20
STATISTICS: Final = ("mean", "p99")
#: The whole run, with cold start and learning, and its second half.
PARTS: Final = ("whole", "half")


class Level(NamedTuple):
    """One number of one policy: as it is, and in every bootstrap draw, in ms."""

    value: float
    drawn: Floats

    @property
    def logs(self) -> Floats:
        """Return the logarithms, the number itself first, shape (1 + draws,)."""
        return np.asarray(np.log(np.concatenate([[self.value], self.drawn])))


Levels = dict[tuple[str, str], list[Level]]


def levels(runs: Sequence[Runs], draws: int) -> Levels:
    """Return mean and P99 of TTFT of every policy, whole and half: (statistic, part) → one level a policy.

    All seeds are pooled for a P99. Runs must have as many seeds as one another.
    """
    found: Levels = {}
    n = runs[0].ttft_ms.shape[1]
    for part, first in zip(PARTS, (0, n // 2), strict=True):
        values = [each.ttft_ms[:, first:] for each in runs]
        drawn = resamples(len(values[0]), n - first, -(-(n - first) // BLOCKS), draws)
        means = [resampled_means(each, drawn) for each in values]
        tails = resampled_quantiles(values, 0.99, drawn)
        found["mean", part] = [Level(float(each.mean()), its) for each, its in zip(values, means, strict=True)]
        found["p99", part] = [
            Level(float(np.quantile(each, 0.99)), its) for each, its in zip(values, tails, strict=True)
        ]
    return found


def log_ratio(reference: Level, other: Level) -> Floats:
    """Return the logarithm of how many times as fast `other` is, the estimate first, then every draw.

    >>> np.exp(log_ratio(Level(300.0, np.array([400.0])), Level(200.0, np.array([200.0])))).round(2)
    array([1.5, 2. ])
    """
    return reference.logs - other.logs


def interval_of(logs: Floats) -> tuple[float, float, float]:
    """Return the ratio and its 95 % interval from logarithms as `log_ratio` gives them.

    >>> [round(value, 2) for value in interval_of(np.log(np.array([1.5, 1.4, 1.5, 1.6])))]
    [1.5, 1.4, 1.6]
    """
    low, high = expanded_interval(logs[1:], BLOCKS)
    return float(np.exp(logs[0])), float(np.exp(low)), float(np.exp(high))
