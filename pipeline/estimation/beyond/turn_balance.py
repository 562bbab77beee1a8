"""Whether a plan set the turns of two arms: the traffic that came in the turns of one must be like that of the other.

Only what the arms do not act on can tell: what came in, and when. How busy the system is at a switch tells where turns
are uneven alone: there, a router that steps in when the other is busy looks like turns. With turns as a plan sets them,
the load at a switch is what the other arm left, and differs wherever the arms do.

Formula: difference of the means over the requests of each arm, of the ranks of a covariate, over its error by periods;
Student's t by Welch's degrees of freedom, as the effect itself. With few periods only gross imbalance shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr
from scipy.stats import rankdata

from lodestar.pipeline.estimation.beyond.arm_balance import Balance
from lodestar.pipeline.estimation.beyond.switchback import difference_by_periods, periods_of

__all__ = ["Traffic", "turn_balance"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: A plan's shortest turn is no more than so many times shorter than the mean of those that a coin strings together.
_UNEVEN: Final = 2.0
_ROUNDING: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Traffic:
    """What came with each request.

    Attributes:
        name: such as 'prompt tokens'.
        values: of each request, shape (n,); NaN where nothing is known.
        at_switch: whether it speaks of the first request of a turn alone, and of uneven turns alone.
    """

    name: str
    values: Floats
    at_switch: bool = False


def turn_balance(
    arm: Ints, traffic: Sequence[Traffic], names: tuple[str, str] = ("arm 0", "arm 1"), at_s: Floats | None = None
) -> Balance:
    """Test that traffic is alike in the turns of both arms; a turn lasts until the arm changes.

    Args:
        arm: that was in charge of the whole system, 0 or 1, shape (n,).
        traffic: of the same requests.
        names: of the arms.
        at_s: when each request came, shape (n,); a clock's turns are even in time, if not in requests.

    Raises:
        DataError: too few periods, or nothing that can be tested.

    >>> arm = np.repeat(np.tile([0, 1], 8), 50)
    >>> tokens = 100.0 + np.arange(800) % 100 + 300 * arm
    >>> found = turn_balance(arm, [Traffic("prompt tokens", tokens)])
    >>> found.passed, found.tests[0].finding
    (False, 'prompt tokens are 474.5 in the mean in the turns of arm 1 and 124.5 in those of arm 0; expected alike')
    """
    starts, of_arm = periods_of(arm.astype(np.float64), arm, None)
    lengths = np.diff(np.append(starts, len(arm)))
    uneven = _uneven(lengths.astype(np.float64), of_arm)
    if uneven and at_s is not None and np.isfinite(at_s).all():
        uneven = _uneven(np.diff(np.append(at_s[starts], at_s[-1])), of_arm)
    found, untested = [], []
    for each in traffic:
        if each.at_switch and not uneven:
            continue
        known = np.isfinite(each.values)
        if not known.all() or np.ptp(each.values) == 0:
            untested.append(each.name)
            continue
        values = each.values[starts] if each.at_switch else each.values
        arms = of_arm if each.at_switch else arm
        p = _p(values, starts, lengths, of_arm, each.at_switch)
        of_a, of_b = (float(values[arms == which].mean()) for which in (0, 1))
        where = "at the start of the turns" if each.at_switch else "in the turns"
        of = f"in the mean {where} of {names[1]} and {of_a:.4g} in those of {names[0]}"
        found.append((each.name, p, f"{each.name} are {of_b:.4g} {of}; expected alike"))
    return Balance.of(found, untested)


def _p(values: Floats, starts: Ints, lengths: Ints, of_arm: Ints, at_switch: bool) -> float:
    """Return the two-sided p of the difference of the mean ranks, which no single request can carry."""
    rank = rankdata(values) / len(values)
    totals, many = (rank, np.ones_like(lengths)) if at_switch else (np.add.reduceat(rank, starts), lengths)
    difference, parts, freedom = difference_by_periods(totals, many, of_arm)
    se = float(np.sqrt(np.sum(parts**2)))
    if abs(difference) <= _ROUNDING:
        return 1.0
    return float(2 * stdtr(freedom, -abs(difference) / se)) if se > 0 else 0.0


def _uneven(lengths: Floats, of_arm: Ints) -> bool:
    """Tell whether the turns of an arm differ as no plan's do; the first and the last are cut by the log.

    Where a coin of share p decides on each of even blocks, 1 / (1 − p) of an arm follow each other in the mean.
    """
    inner, arms = lengths[1:-1], of_arm[1:-1]
    turns = [inner[arms == which] for which in (0, 1)]
    whole = inner.sum()
    return any(each.mean() * (whole - each.sum()) > _UNEVEN * each.min() * whole for each in turns)
