"""Two routers that take turns on the whole system: their difference, with what the other left behind thrown away.

Estimand: *closed loop, all B minus all A*, over traffic like the logged one. After each switch the queues and caches
are still those of the other router. The first requests of each period, its burn-in, are left out; with them, the error
shrinks as T^(-1/3) of the length T of the test, without them as √(log T / T). A period counts as one observation: its
requests stand in the same queues.

The burn-in is a third of the shortest period, whatever the costs are: one chosen by where the path of differences comes
to rest would follow the noise of that path, and the error of the answer would know nothing of the choice. The interval
goes to each side by Welch's t, further on the side that periods are skewed to (`skew`), and further where the burn-in
took the difference, by as much again. Under geometric mixing what is left is no more than that if a period is three
times as long as the system's memory (the requests after which 1/e of a disturbance is left) or longer.

Reference: Hu and Wager 2022, Switchback experiments under geometric mixing (arXiv:2209.00197).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from lodestar.data.errors import ConfigError, DataError
from lodestar.pipeline.estimation.beyond.differences_in_q import ESTIMAND
from lodestar.pipeline.estimation.beyond.plateau import errors_of
from lodestar.pipeline.estimation.skew import lean, skew

__all__ = ["ESTIMAND", "Switchback", "design_of", "difference_by_periods", "periods_of", "switchback"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Fewer periods of an arm tell nothing of how periods differ.
FEWEST_PERIODS: Final = 4
#: The burn-in is this part of the shortest period: a half would leave errors 15 % larger, a quarter more of the other.
_PART: Final = 3
#: A path that moves by more standard errors over the last three quarters of the burn-in has not come to rest.
_MOVES: Final = 2.0


@dataclass(frozen=True, slots=True)
class Switchback:
    """The difference of two arms over a grid of burn-ins, the longest of which is the answer.

    Attributes:
        burn_ins: requests left out at the start of each period, increasing from 0, shape (k,).
        values: mean cost of arm 1 less that of arm 0, in the unit of the cost, shape (k,).
        ses: their standard errors by periods, shape (k,).
        periods: of arm 0, and of arm 1.
        freedom: degrees of freedom of Student's t for the answer.
        skew: of the answer's error.
        carried_over: the difference without any burn-in, less the answer.
        carried_over_se: its standard error.
        notes: what a reader must know of it, sentences without a full stop.
    """

    burn_ins: Ints
    values: Floats
    ses: Floats
    periods: tuple[int, int]
    freedom: float
    skew: float
    carried_over: float
    carried_over_se: float
    notes: tuple[str, ...] = ()

    @property
    def burn_in(self) -> int:
        """The longest burn-in, in requests."""
        return int(self.burn_ins[-1])

    @property
    def value(self) -> float:
        """The difference with the longest burn-in."""
        return float(self.values[-1])

    @property
    def se(self) -> float:
        """Its standard error."""
        return float(self.ses[-1])

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the interval: Welch's t over periods, further where they are skewed to and where the burn-in led."""
        t = float(stdtrit(self.freedom, (1 + level) / 2))
        skewed, led = lean(self.skew, t) * self.se, -self.carried_over
        return (
            self.value - t * self.se + min(skewed, 0.0) + min(led, 0.0),
            self.value + t * self.se + max(skewed, 0.0) + max(led, 0.0),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the path and the answer, ready for JSON."""
        return {
            "estimand": ESTIMAND,
            "value": self.value,
            "se": self.se,
            "ci95": list(self.interval()),
            "burn_in": self.burn_in,
            "periods": list(self.periods),
            "carried_over": self.carried_over,
            "carried_over_se": self.carried_over_se,
            "path": [
                {"burn_in": int(burn_in), "value": float(value), "se": float(se)}
                for burn_in, value, se in zip(self.burn_ins, self.values, self.ses, strict=True)
            ],
            "notes": list(self.notes),
        }


def design_of(arm: Ints) -> str:
    """Say by the lengths of runs how two arms share a log: 'per request', 'switchback' or 'one arm'.

    A coin for each of n requests changes the arm 2 n₀ n₁ / n times (Wald and Wolfowitz 1940); half as many or fewer
    are no coin's.

    >>> design_of(np.array([0, 1, 1, 0, 1, 0])), design_of(np.repeat([0, 1, 0, 1], 50)), design_of(np.zeros(9, int))
    ('per request', 'switchback', 'one arm')
    """
    arms, counts = np.unique(arm, return_counts=True)
    if len(arms) < 2:
        return "one arm"
    by_a_coin = len(arm) - float(np.sum(counts.astype(np.float64) ** 2)) / len(arm)
    return "switchback" if np.count_nonzero(np.diff(arm)) <= by_a_coin / 2 else "per request"


def switchback(cost: Floats, arm: Ints, burn_ins: Ints | None = None, period: Ints | None = None) -> Switchback:
    """Estimate the difference of two arms that took turns.

    Args:
        cost: of each request, in order of arrival, shape (n,).
        arm: that was in charge of the whole system, 0 or 1, shape (n,).
        burn_ins: to try, in requests, the longest of which is the answer; None: 0, 1, 2, 4, … and a third of the
            shortest period.
        period: which turn each request is of, non-decreasing, shape (n,); None: a turn lasts until the arm changes.
            Name them where two turns of one arm may follow each other, as they do where a coin decides on each.

    Raises:
        DataError: fewer than `FEWEST_PERIODS` periods of an arm, or periods of mixed arms.
        ConfigError: burn-ins that leave nothing of a period.

    >>> arm = np.repeat([0, 1, 1, 0, 1, 0, 0, 1], 100)
    >>> cost = 2.0 * arm + np.sin(np.arange(800.0))
    >>> found = switchback(cost, arm, period=np.arange(800) // 100)
    >>> print(f"{found.value:.1f}, periods {found.periods}, {design_of(arm)}")
    2.0, periods (4, 4), switchback
    """
    starts, of_arm = periods_of(cost, arm, period)
    lengths = np.diff(np.append(starts, len(cost)))
    shortest = int(lengths.min())
    burn_ins = (
        _burn_ins(shortest) if burn_ins is None else np.unique(np.append(0, np.asarray(burn_ins, dtype=np.int64)))
    )
    if burn_ins[0] < 0 or burn_ins[-1] >= shortest:
        raise ConfigError(f"burn-ins {burn_ins.tolist()}; expected 0 to {shortest - 1}, less than the shortest period")
    after = np.arange(len(cost)) - np.repeat(starts, lengths)
    values, parts, freedom = np.empty(len(burn_ins)), np.empty((len(starts), len(burn_ins))), np.empty(len(burn_ins))
    for k, burn_in in enumerate(burn_ins.tolist()):
        kept = (after >= burn_in).astype(np.float64)
        totals = np.add.reduceat(kept * cost, starts)
        values[k], parts[:, k], freedom[k] = difference_by_periods(totals, lengths - burn_in, of_arm)
    counts = np.bincount(of_arm, minlength=2)
    return Switchback(
        burn_ins, values, errors_of(parts), (int(counts[0]), int(counts[1])), float(freedom[-1]), skew(parts[:, -1]),
        float(values[0] - values[-1]), float(errors_of(parts[:, [0]] - parts[:, [-1]])[0]),
        _notes(burn_ins, values, parts, shortest),
    )  # fmt: skip


def periods_of(cost: Floats, arm: Ints, period: Ints | None) -> tuple[Ints, Ints]:
    """Return where each period starts, and its arm; arguments and errors as for `switchback`.

    >>> arm = np.repeat([0, 1] * 4, 2)
    >>> periods_of(np.ones(16), arm, None)[0].tolist()
    [0, 2, 4, 6, 8, 10, 12, 14]
    """
    if arm.shape != cost.shape or not np.isin(arm, (0, 1)).all():
        raise DataError(f"arms have shape {arm.shape}; expected {cost.shape}, each 0 or 1")
    if not len(cost):
        raise DataError("there are no requests; expected periods of both arms")
    if not np.isfinite(cost).all():
        raise DataError(f"{(~np.isfinite(cost)).sum()} of {len(cost)} requests have no cost; expected one for each")
    told = arm if period is None else period
    if told.shape != cost.shape or (period is not None and (np.diff(period) < 0).any()):
        raise DataError(f"periods have shape {told.shape}; expected {cost.shape}, in order of time")
    starts = np.concatenate([[0], 1 + np.flatnonzero(np.diff(told))]).astype(np.int64)
    if period is not None and not np.isin(np.flatnonzero(np.diff(arm)) + 1, starts).all():
        raise DataError(
            "a period has requests of both arms; expected one arm a period. Use differences_in_q for a coin"
        )
    of_arm = arm[starts]
    fewest = int(np.bincount(of_arm, minlength=2).min())
    if fewest < FEWEST_PERIODS:
        raise DataError(
            f"{fewest} periods of an arm are too few to tell its effect from that of the time; expected "
            f"{FEWEST_PERIODS} or more of each. Let the arms take turns more often"
        )
    return starts, of_arm


def _burn_ins(shortest: int) -> Ints:
    longest = shortest // _PART
    return np.unique(np.concatenate([[0], 2 ** np.arange(longest.bit_length()), [longest]])).astype(np.int64)


def difference_by_periods(totals: Floats, lengths: Ints, of_arm: Ints) -> tuple[float, Floats, float]:
    """Return the difference of the arms, each period's part of its error with its sign, and Welch's degrees of freedom.

    The square of the error is the sum of the squares of the parts: s²/P of each arm over its P periods, which may
    differ in length.

    Args:
        totals: sum of the values of each period, shape (periods,).
        lengths: values in each period, shape (periods,).
        of_arm: of each period, 0 or 1, two of each at least, shape (periods,).

    >>> found, parts, freedom = difference_by_periods(np.array([2.0, 4, 6, 4]), np.full(4, 2), np.array([0, 1, 1, 0]))
    >>> round(found, 2), round(float(np.sum(parts**2)), 2), round(freedom, 2)
    (1.0, 0.5, 2.0)
    """
    means, parts, variances = [], np.zeros(len(totals)), []
    for which in (0, 1):
        here = of_arm == which
        mean = totals[here].sum() / lengths[here].sum()
        periods = int(here.sum())
        off = (totals[here] - mean * lengths[here]) / lengths[here].sum() * np.sqrt(periods / (periods - 1))
        parts[here] = off if which else -off
        means.append(mean)
        variances.append((float(np.sum(off**2)), periods - 1))
    whole = sum(variance for variance, _ in variances)
    within = sum(variance**2 / freedom for variance, freedom in variances)
    freedom = whole**2 / within if within > 0 else float(len(totals) - 2)
    return float(means[1] - means[0]), parts, freedom


def _notes(burn_ins: Ints, values: Floats, parts: Floats, shortest: int) -> tuple[str, ...]:
    longest = int(burn_ins[-1])
    if not longest:
        return ("no burn-in was tried, so what the other arm left may be in it; let each arm's turns last longer",)
    moved = values[-1] - values[0]
    notes = [
        f"the first {longest} requests of each period, of {shortest} or more, are left out: the other arm's queues and "
        f"caches. Without them the difference moves by {moved:+.3g}, and the interval reaches as much further that way"
    ]
    early = int(np.searchsorted(burn_ins, longest / 4, side="right")) - 1
    since, error = values[-1] - values[early], float(errors_of(parts[:, [-1]] - parts[:, [early]])[0])
    if abs(since) > _MOVES * error:
        notes.append(
            f"from a burn-in of {burn_ins[early]} requests to {longest} it still moves by {since:+.3g} ± {error:.2g}: "
            "what the other arm left may not be out; let each arm's turns last longer"
        )
    return tuple(notes)
