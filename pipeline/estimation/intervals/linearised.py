"""The interval of an estimate from its influence values: value ± t · standard error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from lodestar.data.errors import DataError
from lodestar.pipeline.estimation.blocks import block_of, block_se, blocks_in
from lodestar.pipeline.estimation.intervals.interval import ALONG_PATH, OVER_TRAFFIC, Interval, check_level

__all__ = ["linearised_interval", "t_quantile"]

Floats = NDArray[np.float64]


def linearised_interval(value: float, influence: Floats, block: int | None = None, level: float = 0.95) -> Interval:
    """Return value ± t · se, with se = sd(block means) / √blocks and t of Student with blocks − 1 degrees of freedom.

    It is two-sided: 95 % takes the 97.5 % quantile. With blocks of one it claims the value along this logged path, for
    which requests may be taken one by one, as the errors are those of a martingale. Longer blocks claim the value over
    traffic like the logged one, and hold where what requests have in common is forgotten within a block. Prefix groups
    that go on through the whole log are part of what "like the logged one" means: on replays whose groups were drawn
    anew, each with one prompt length, intervals of 95 % held 60 to 75 % of the time; with one burst or two a block, 79
    to 84 % (`replayed_coverage` of `LIMITS`).

    Args:
        value: the estimate.
        influence: its linearised part of every decision, in order of arrival, shape (n,); see `Valued`.
        block: consecutive decisions that count as one; None: `block_of`, 1: each by itself.
        level: how often it should hold.

    >>> found = linearised_interval(4.0, np.array([1.0, 3.0, 5.0, 7.0]), block=1)
    >>> print(f"{found.lower:.2f} to {found.upper:.2f}: {found.estimand}")
    -0.11 to 8.11: value along this logged path
    """
    check_level(level)
    if influence.ndim != 1 or not np.isfinite(influence).all():
        raise DataError(f"influence has shape {influence.shape}; expected finite numbers, one a decision")
    block = block_of(len(influence)) if block is None else block
    se = block_se(influence, block)
    half = t_quantile(blocks_in(len(influence), block), level) * se
    how = "decisions one by one" if block == 1 else f"blocks of {block} decisions"
    return Interval(
        value,
        value - half,
        value + half,
        level,
        ALONG_PATH if block == 1 else OVER_TRAFFIC,
        f"linearised, Student's t, {how}",
        se,
    )


def t_quantile(blocks: int, level: float) -> float:
    """Return how many standard errors a two-sided interval of the mean of so many blocks goes to each side.

    >>> round(t_quantile(25, 0.95), 3), round(t_quantile(1_000_000, 0.95), 3)
    (2.064, 1.96)
    """
    return float(stdtrit(blocks - 1, (1 + level) / 2))
