"""The interval of an estimate from its influence values: value ± t · standard error, and more towards a skew."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from lodestar.data.errors import DataError
from lodestar.pipeline.estimation.blocks import block_of, block_se, block_sums
from lodestar.pipeline.estimation.intervals.interval import ALONG_PATH, OVER_TRAFFIC, Interval, check_level
from lodestar.pipeline.estimation.shared_prefixes import SharedPrefixes
from lodestar.pipeline.estimation.skew import lean, skew

__all__ = ["linearised_interval", "t_quantile"]

Floats = NDArray[np.float64]

#: What the data say of the degrees of freedom is itself a guess. With fewer than two, intervals held 99 % of the time
#: where a log has a hundred groups.
_FEWEST_DEGREES: Final = 2.0


def linearised_interval(
    value: float,
    influence: Floats,
    block: int | None = None,
    level: float = 0.95,
    shared: SharedPrefixes | None = None,
) -> Interval:
    """Return value ± t · se, with se² = variance of block means / blocks + what prefix groups add that span blocks.

    It is two-sided: 95 % takes the 97.5 % quantile. With blocks of one it claims the value along this logged path, for
    which requests may be taken one by one, as the errors are those of a martingale. Longer blocks claim the value over
    traffic like the logged one, and hold where what requests have in common is forgotten within a block, or is a prefix
    group that `shared` names (`SharedPrefixes.spanning`): other traffic has other groups. Of the very same
    requests once more, they are too wide: see `same_requests_interval`. How often they hold: `replayed_coverage`; near
    overload, too seldom: see `near_overload`.

    t is Student's, with blocks − 1 degrees of freedom, or fewer where what the groups add is unsure: 2 se⁴ / variance
    of se² (Satterthwaite 1946), but not fewer than two. The end that the blocks are skewed to, such as the upper one
    where a few bursts make the cost, lies further off by t's error under such a skew (Johnson 1978); the other stays.

    Args:
        value: the estimate.
        influence: its linearised part of every decision, in order of arrival, shape (n,); see `Valued`.
        block: consecutive decisions that count as one; None: `block_of`, 1: each by itself.
        level: how often it should hold.
        shared: which of the n requests share a prefix; None: not known.

    >>> found = linearised_interval(4.0, np.array([1.0, 3.0, 5.0, 7.0]), block=1)
    >>> print(f"{found.lower:.2f} to {found.upper:.2f}: {found.estimand}")
    -0.11 to 8.11: value along this logged path
    >>> found = linearised_interval(4.0, np.array([2.0, 2.0, 3.0, 9.0]), block=1)
    >>> print(f"{found.lower:.2f} to {found.upper:.2f}")
    -1.36 to 12.61
    """
    check_level(level)
    if influence.ndim != 1 or not np.isfinite(influence).all():
        raise DataError(f"influence has shape {influence.shape}; expected finite numbers, one a decision")
    block = block_of(len(influence)) if block is None else block
    se, sums = block_se(influence, block), block_sums(influence - influence.mean(), block)
    further, degrees = lean(skew(sums), t_quantile(len(sums), level)) * se, len(sums) - 1.0
    how = "decisions one by one" if block == 1 else f"{len(sums)} blocks of {block} decisions"
    if shared is not None and block > 1 and (found := shared.spanning(influence, block)).added > 0:
        noise = 2 * se**4 / degrees + found.noise
        se = float(np.hypot(se, np.sqrt(found.added)))
        degrees = min(degrees, max(_FEWEST_DEGREES, 2 * se**4 / noise))
        how = f"{how} and prefix groups that span them"
    half = float(stdtrit(degrees, (1 + level) / 2)) * se
    return Interval(
        value,
        value - half + min(further, 0.0),
        value + half + max(further, 0.0),
        level,
        ALONG_PATH if block == 1 else OVER_TRAFFIC,
        f"linearised, Student's t with Johnson's skew, {how}",
        se,
    )


def t_quantile(blocks: int, level: float) -> float:
    """Return how many standard errors a two-sided interval of the mean of so many blocks goes to each side.

    >>> round(t_quantile(25, 0.95), 3), round(t_quantile(1_000_000, 0.95), 3)
    (2.064, 1.96)
    """
    return float(stdtrit(blocks - 1, (1 + level) / 2))
