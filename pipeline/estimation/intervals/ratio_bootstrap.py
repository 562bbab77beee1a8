"""Bootstrap of a ratio, numerator and denominator drawn together."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from lodestar.data.errors import ConfigError, DataError
from lodestar.pipeline.estimation.blocks import block_of, block_sums, blocks_in
from lodestar.pipeline.estimation.intervals.interval import ALONG_PATH, OVER_TRAFFIC, Interval, check_level
from lodestar.pipeline.estimation.intervals.linearised import t_quantile

__all__ = ["drawn_blocks", "ratio_bootstrap"]

Floats = NDArray[np.float64]

_NUMBERS_AT_ONCE: Final = 4_000_000  # of a temporary array: 32 MB


def ratio_bootstrap(
    numerator: Floats,
    denominator: Floats,
    added: Floats | None = None,
    block: int | None = None,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return the interval of mean(added) + Σ numerator / Σ denominator, such as that of snipw or sndr.

    Every draw takes blocks of consecutive decisions with replacement and divides anew. To keep the denominator of the
    log while the numerator is drawn, as obp 0.5.7 does for snipw and sndr, gives intervals of a wrong width: what a
    heavy weight adds to both no longer cancels. The percentiles are those of the level, widened by what Student's t
    does for a mean of as many blocks.

    Args:
        numerator: w · y for snipw, w · (y − q̂) for sndr, in order of arrival, shape (n,).
        denominator: w, shape (n,).
        added: q̂(x, π) for sndr, shape (n,); None: nothing.
        block: consecutive decisions that are drawn together; None: `block_of`, 1: each by itself.
        draws: bootstrap samples.
        seed: of the draws; the same seed gives the same interval.
        level: how often it should hold.

    Reference: Hesterberg 2015, What teachers should know about the bootstrap, §5.3.

    >>> w, y = np.tile([0.5, 1.0, 2.0], 400), np.tile([3.0, 2.0, 1.0, 4.0, 5.0], 240)
    >>> found = ratio_bootstrap(w * y, w, block=1)
    >>> print(f"{found.value:.2f} in {found.lower:.2f} to {found.upper:.2f}")
    3.00 in 2.91 to 3.09
    """
    check_level(level)
    n, parts = len(numerator), [numerator, denominator, np.zeros(len(numerator)) if added is None else added]
    if any(part.shape != (n,) or not np.isfinite(part).all() for part in parts):
        raise DataError(f"shapes are {[part.shape for part in parts]}; expected finite numbers, one a decision")
    if not denominator.sum() > 0:
        raise DataError(
            "the denominator adds up to 0, so the ratio has no value; log a policy that explores, or use dm"
        )
    block = block_of(n) if block is None else block
    whole = np.stack([*parts, np.ones(n)], axis=1)
    drawn = drawn_blocks(block_sums(whole, block), draws, seed)
    usable = drawn[drawn[:, 1] > 0]
    ratios = usable[:, 2] / usable[:, 3] + usable[:, 0] / usable[:, 1]
    if len(usable) < draws:
        raise DataError(
            f"{draws - len(usable)} of {draws} draws share no decision with the policy; expected none. "
            "Its weight lies on too few requests for an interval"
        )
    blocks = blocks_in(n, block)
    tail = float(ndtr(-math.sqrt(blocks / (blocks - 1)) * t_quantile(blocks, level)))
    lower, upper = np.quantile(ratios, [tail, 1 - tail])
    return Interval(
        float(parts[2].mean() + numerator.sum() / denominator.sum()),
        float(lower),
        float(upper),
        level,
        ALONG_PATH if block == 1 else OVER_TRAFFIC,
        f"bootstrap of numerator and denominator, {draws} draws of blocks of {block}",
        float(ratios.std(ddof=1)),
    )


def drawn_blocks(sums: Floats, draws: int, seed: int) -> Floats:
    """Add up as many blocks as there are, drawn with replacement, `draws` times: shape (blocks, k) → (draws, k).

    >>> drawn_blocks(np.ones((3, 1)), draws=2, seed=0)
    array([[3.],
           [3.]])
    """
    if draws < 2:
        raise ConfigError(f"draws {draws} is not usable; expected at least 2")
    random, blocks = np.random.default_rng(seed), len(sums)
    found, at_once = np.empty((draws, sums.shape[1])), max(1, _NUMBERS_AT_ONCE // blocks)
    for first in range(0, draws, at_once):
        rows = min(at_once, draws - first)
        taken = random.integers(0, blocks, (rows, blocks)) + np.arange(rows)[:, None] * blocks
        counts = np.bincount(taken.ravel(), minlength=rows * blocks).reshape(rows, blocks)
        found[first : first + rows] = counts @ sums
    return found
