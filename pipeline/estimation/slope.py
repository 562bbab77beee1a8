"""SLOPE: choose a hyper-parameter from the data, by intervals that must overlap.

Nothing is kept between calls: the same rows give the same hyper-parameter, whatever was tuned before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from scipy.special import stdtrit

from lodestar.data.errors import ConfigError
from lodestar.pipeline.estimation.blocks import block_se, blocks_in
from lodestar.pipeline.estimation.one_step import Tried, Valued

__all__ = ["CLIPS", "SHARES", "SHRINKAGES", "Slope", "slope", "tuned"]

#: Largest weights to try in switching and clipping; weights have a mean of 1.
CLIPS: Final = (math.inf, 1000.0, 500.0, 200.0, 100.0, 50.0, 20.0, 10.0, 5.0, 2.0)
#: λ to try in optimistic shrinkage, which compares it with squared weights.
SHRINKAGES: Final = (math.inf, 1e6, 1e5, 1e4, 1e3, 100.0, 10.0, 1.0)
#: λ to try in sub-Gaussian shrinkage, from none to all weights alike.
SHARES: Final = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)

_OVERLAP: Final = math.sqrt(6) - 1


@dataclass(frozen=True, slots=True)
class Slope:
    """The hyper-parameter that SLOPE chose, and all that it tried, widest interval first."""

    lambda_: float
    path: tuple[Tried, ...]


def slope(estimator: Callable[[float], Valued], lambdas: Sequence[float], block: int = 1, delta: float = 0.1) -> Slope:
    """Choose the hyper-parameter with the narrowest interval that agrees with all wider ones.

    The hyper-parameters are walked from the widest half-width hw to the narrowest, for as long as
    |Vᵢ − Vⱼ| ≤ hwᵢ + (√6 − 1) hwⱼ for every j before; the last that passes is chosen. Neither the sign of the costs nor
    a constant added to them matters where the estimator does not mind it. hw is the one-sided Student bound at `delta`,
    as obp has it, with the standard error of blocks and one degree of freedom fewer than there are blocks.

    Assumes that bias grows as the interval narrows, and that one of the hyper-parameters has hardly any.
    Reference: Su, Srinath and Krishnamurthy 2020.

    Args:
        estimator: of one hyper-parameter.
        lambdas: hyper-parameters to try; of equally wide ones, the later is walked first.
        block: consecutive decisions that count as one; 1 takes them as independent, as obp does.
        delta: probability with which one half-width is too narrow.

    >>> noisy, biased = Valued(1.0, np.array([-8.0, 10.0])), Valued(9.0, np.array([9.0, 9.1]))
    >>> slope({0.0: noisy, 1.0: biased}.__getitem__, [0.0, 1.0]).lambda_
    1.0
    """
    path = _walk(_measured(estimator, lambdas, block, delta))
    return Slope(next(each.lambda_ for each in reversed(path) if each.accepted), path)


def tuned(estimator: Callable[[float], Valued], lambdas: Sequence[float], block: int) -> Valued:
    """Return the estimate of the narrowest hyper-parameter that SLOPE accepts and that does not flatter the policy.

    Passed over are those whose value is below that of the whole weights, as costs are lower where a policy is better: a
    narrow interval is not bought with a better look. That errs towards a worse one. Passed over, too, are those whose
    interval is no narrower than that of the whole weights: they gain nothing, and SLOPE would begin with their bias.
    The influence is that of the estimate with this hyper-parameter given, and so knows nothing of the bias that SLOPE
    tolerates, which may be several of its standard errors: `Valued.whole` is what an interval must reach over too.

    Args:
        estimator: of one hyper-parameter.
        lambdas: hyper-parameters to try, first the one that leaves all weights as they are.
        block: consecutive decisions that count as one.
    """
    tried = _measured(estimator, lambdas, block)
    whole = tried[0]
    wider = [each for each in tried if each.half_width > whole.half_width]
    # The last of equally wide ones is walked first: the whole weights, which have no bias to measure others by.
    path = _walk([*(each for each in tried[1:] if each.half_width <= whole.half_width), whole])
    accepted = [each for each in path if each.accepted and each.half_width < whole.half_width]
    gains = [each.lambda_ for each in accepted if each.value >= whole.value]
    chosen = gains[-1] if gains else whole.lambda_
    return replace(
        estimator(chosen),
        path=(*wider, *path),
        whole=None if chosen == whole.lambda_ else estimator(whole.lambda_),
    )


def _measured(
    estimator: Callable[[float], Valued], lambdas: Sequence[float], block: int, delta: float = 0.1
) -> list[Tried]:
    """Return the value and half-width of every hyper-parameter, not yet accepted."""
    if not lambdas:
        raise ConfigError("no lambda_ to choose from is given; expected one or more")
    tried = []
    for lambda_ in lambdas:
        valued = estimator(lambda_)
        blocks = blocks_in(len(valued.influence), block)
        half_width = float(stdtrit(blocks - 1, 1 - delta)) * block_se(valued.influence, block)
        tried.append(Tried(float(lambda_), valued.value, half_width, accepted=False))
    return tried


def _walk(tried: Sequence[Tried]) -> tuple[Tried, ...]:
    """Return them from the widest to the narrowest, accepted up to the first that disagrees with one before."""
    widths = np.array([each.half_width for each in tried])
    order = np.argsort(widths, kind="stable")[::-1]
    widths, values = widths[order], np.array([each.value for each in tried])[order]
    accepted = 1
    while (
        accepted < len(order)
        and (np.abs(values[:accepted] - values[accepted]) <= widths[accepted] + _OVERLAP * widths[:accepted]).all()
    ):
        accepted += 1
    return tuple(replace(tried[place], accepted=i < accepted) for i, place in enumerate(order))
