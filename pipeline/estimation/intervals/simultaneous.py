"""Several policies at once: differences to a baseline that hold together, and how often each comes first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from lodestar.data.errors import ConfigError, DataError
from lodestar.pipeline.estimation.blocks import block_of, block_se, block_sums, blocks_in
from lodestar.pipeline.estimation.intervals.block_bootstrap import simultaneous_intervals
from lodestar.pipeline.estimation.intervals.interval import ALONG_PATH, OVER_TRAFFIC
from lodestar.pipeline.estimation.intervals.ranks import rank_probabilities
from lodestar.pipeline.estimation.intervals.ratio_bootstrap import drawn_blocks
from lodestar.pipeline.estimation.one_step import ESTIMAND, Valued

__all__ = ["Difference", "compared", "holm"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Difference:
    """One policy against the baseline, in the unit of the cost.

    Attributes:
        policy: its name.
        difference: its value less the baseline's; 0 for the baseline itself.
        lower: bound that holds with 95 % for all policies at once.
        upper: bound of the same kind.
        se: standard error of the difference, by blocks.
        p_holm: probability of such a difference where there is none, by Holm over all policies; None for the baseline.
        ranks: share of the draws in which it came first, second, …: no claim on how right the estimates are.
        estimand: of what.
    """

    policy: str
    difference: float
    lower: float
    upper: float
    se: float
    p_holm: float | None
    ranks: tuple[float, ...]
    estimand: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self)


def compared(
    values: Mapping[str, Valued], baseline: str, block: int | None = None, draws: int = 2000, seed: int = 0
) -> list[Difference]:
    """Compare policies on the same decisions, paired: blocks are drawn for all of them together.

    Intervals are max-t: each as many of its standard errors wide as the largest of them needs in 95 % of the draws.

    Args:
        values: policy → its value by one estimator, with influence values of the same decisions in the same order.
        baseline: one of them.
        block: consecutive decisions that count as one; None: `block_of`.
        draws: bootstrap samples of blocks.
        seed: of the draws.

    Returns:
        One row a policy, in the order given.

    Reference: Romano and Wolf 2005 (max-t); Holm 1979.

    >>> shared, random = np.repeat(np.arange(50.0), 40), np.random.default_rng(0)
    >>> a, b = (Valued(base, shared + random.normal(size=2000)) for base in (100.0, 98.0))
    >>> better = compared({"a": a, "b": b}, "a")[1]
    >>> f"{better.lower:.2f} to {better.upper:.2f}", better.ranks
    ('-2.06 to -1.94', (1.0, 0.0))
    """
    n = _decisions(values, baseline)
    block = block_of(n) if block is None else block
    names = list(values)
    influence = np.stack([values[name].influence - values[name].influence.mean() for name in names])
    estimates = np.array([values[name].value for name in names])
    sums = drawn_blocks(block_sums(np.vstack([influence, np.ones((1, n))]).T, block), draws, seed)
    drawn = estimates[:, None] + (sums[:, :-1] / sums[:, -1:]).T
    base, blocks = names.index(baseline), blocks_in(n, block)
    apart, errors = estimates - estimates[base], [block_se(each, block) for each in influence - influence[base]]
    intervals = simultaneous_intervals(apart, drawn - drawn[base], blocks)
    others = [k for k in range(len(names)) if k != base]
    p = dict(zip(others, holm(_p_values(apart[others], np.array(errors)[others], blocks)), strict=True))
    ranks = rank_probabilities(drawn)
    estimand = f"{ESTIMAND}: {ALONG_PATH if block == 1 else OVER_TRAFFIC}, less that of {baseline}"
    return [
        Difference(name, float(apart[k]), *intervals[k], errors[k], p.get(k), tuple(map(float, ranks[k])), estimand)
        for k, name in enumerate(names)
    ]


def holm(p: Floats) -> list[float]:
    """Return p values that hold for all at once: the least times how many there are, the next times one less, ….

    >>> [round(each, 3) for each in holm(np.array([0.01, 0.04, 0.03]))]
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    found = np.empty(len(p))
    found[order] = np.minimum(stepped, 1.0)
    return [float(each) for each in found]


def _p_values(apart: Floats, errors: Floats, blocks: int) -> Floats:
    """Return the two-sided p value of each difference, by Student's t; 1 where neither differs nor errs."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(apart == 0, 0.0, np.abs(apart) / errors)
    return np.asarray(2 * stdtr(blocks - 1, -t))


def _decisions(values: Mapping[str, Valued], baseline: str) -> int:
    if baseline not in values or len(values) < 2:
        raise ConfigError(
            f"baseline {baseline} among {', '.join(values) or 'no policy'}; expected it and at least one other"
        )
    lengths = {len(each.influence) for each in values.values()}
    if len(lengths) > 1:
        raise DataError(f"policies were valued on {sorted(lengths)} decisions; expected the same decisions for all")
    return lengths.pop()
