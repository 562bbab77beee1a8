"""Requests cut off before their outcome: their latency is only known to exceed a bound, and is not dropped.

A timeout cuts off the slow requests, so a model of the others believes in a faster cluster. The law of the residuals,
measured latency over prediction in logs, is estimated from all rows (Kaplan and Meier 1958); each bound is replaced by
what the law expects beyond it, the model is fitted anew, and so on (Buckley and James 1979). For quantiles a bound is
replaced by a draw from the law beyond it, which moves the mass of a censored row to the right as the weights of Portnoy
2003 do, without a second copy of the rows. This holds where a request's bound says nothing of its latency once its
features are known: a timeout does, a client that gives up because the server fails does not.

What lies beyond the last event is known from bounds alone. An exponential law goes on there, but not for ever: in an
outage, when many are cut off at once and long after all that was measured, its mean comes out at thousands of times the
bound. No label is farther beyond the last event than the events span, or than the largest bound where that lies
farther: of such a row it says no more than what is known (Efron 1967 puts the rest of a law at its largest bound).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError

__all__ = ["Imputed", "Survival", "impute", "kaplan_meier"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

STEPS: Final = 4  # fits; from one to the next the labels of bounds then move by 1 % or so
TAIL_EVENTS: Final = 10  # largest events that give the exponential tail beyond the last one
LEAST_TAIL: Final = 0.01  # log units
LEAST_EVENTS: Final = 50  # of a load slice, for a law of its own


@dataclass(frozen=True, slots=True)
class Survival:
    """How much of a law lies beyond each value; what is left after the last event sits at its mean excess.

    Attributes:
        events: distinct uncensored values, increasing.
        beyond: share of the law beyond each event.
        tail: mean excess over a threshold near the last event.
        reach: where the rest of the law may lie at most, but for values that are known to lie beyond.
    """

    events: Floats
    beyond: Floats
    tail: float
    reach: float

    def at(self, values: Floats) -> Floats:
        """Return the share of the law beyond each value, the tail left out."""
        shares: Floats = np.concatenate([[1.0], self.beyond])[np.searchsorted(self.events, values, side="right")]
        return shares

    def quantile(self, share: float) -> float:
        """Return the smallest value with at most 1 - `share` of the law beyond it.

        >>> law = kaplan_meier(np.array([1.0, 2.0, 3.0, 4.0]), np.array([False, True, False, False]))
        >>> law.quantile(0.5)
        3.0
        """
        return float(self._reach(np.array([1.0 - share]), np.array([-np.inf]))[0])

    def mean_beyond(self, bounds: Floats) -> Floats:
        """Return the mean of the law beyond each bound.

        >>> kaplan_meier(np.array([1.0, 2.0, 6.0]), np.zeros(3, dtype=bool)).mean_beyond(np.array([1.0])).round(3)
        array([4.])
        """
        mass = -np.diff(self.beyond, prepend=1.0)
        rest = self.beyond[-1] * float(self._rest(self.events[-1:])[0])
        above = np.concatenate([np.cumsum((mass * self.events)[::-1])[::-1], [0.0]]) + rest
        total = above[np.searchsorted(self.events, bounds, side="right")]
        share = self.at(bounds)
        inside = (bounds < self.events[-1]) & (share > 0.0)
        means: Floats = np.where(inside, total / np.where(inside, share, 1.0), self._rest(bounds))
        return means

    def draw_beyond(self, bounds: Floats, seed: int) -> Floats:
        """Return one draw from the law beyond each bound; the shares drawn are spread evenly, in random order."""
        rng = np.random.default_rng(seed)
        even = (rng.permutation(len(bounds)) + rng.random(len(bounds))) / max(len(bounds), 1)
        return self._reach((1.0 - even) * self.at(bounds), bounds)

    def _reach(self, shares: Floats, bounds: Floats) -> Floats:
        """Return the first event with at most this share of the law beyond it, or where the rest of the law sits."""
        first = np.searchsorted(-self.beyond, -shares * (1.0 + 1e-12), side="left")
        event = self.events[np.minimum(first, len(self.events) - 1)]
        reached: Floats = np.where((first < len(self.events)) & (event > bounds), event, self._rest(bounds))
        return reached

    def _rest(self, bounds: Floats) -> Floats:
        """Return where the rest of the law sits for values that lie beyond these bounds."""
        most = np.maximum(self.reach, bounds + LEAST_TAIL)
        rest: Floats = np.minimum(np.maximum(self.events[-1], bounds) + self.tail, most)
        return rest


def kaplan_meier(values: Floats, censored: Bools) -> Survival:
    """Estimate the law of `values` (n,), some of which are only lower bounds.

    Raises:
        DataError: all are censored, or there are none.

    >>> law = kaplan_meier(np.array([1.0, 2.0, 3.0, 4.0]), np.array([False, True, False, False]))
    >>> law.events.tolist(), law.beyond.tolist()
    ([1.0, 3.0, 4.0], [0.75, 0.375, 0.0])
    """
    if censored.all():
        raise DataError(
            f"all of {len(values)} latencies are only lower bounds; expected some that were measured. "
            "Ingest requests that finished"
        )
    order = np.lexsort((censored, values))
    ordered, known = values[order], ~censored[order]
    at_risk = len(values) - np.arange(len(values))
    beyond = np.cumprod(np.where(known, 1.0 - 1.0 / at_risk, 1.0))
    events, after = ordered[known], beyond[known]
    last = np.append(events[1:] > events[:-1], True)  # of equal values
    span = max(float(events[-1] - events[0]), LEAST_TAIL)
    return Survival(events[last], after[last], _tail(ordered, known), max(float(events[-1]) + span, float(ordered[-1])))


def _tail(ordered: Floats, known: Bools) -> float:
    """Return the mean excess of the largest values over a threshold, as an exponential law with bounds has it."""
    places = np.flatnonzero(known)
    count = min(TAIL_EVENTS, len(places) - 1)
    if count < 1:
        return LEAST_TAIL
    threshold = places[-count - 1]
    return max(float((ordered[threshold + 1 :] - ordered[threshold]).sum()) / count, LEAST_TAIL)


@dataclass(frozen=True, slots=True)
class Imputed:
    """Labels without bounds: rows that were measured keep theirs to the bit.

    Attributes:
        mean: for a fit of the mean of logs: expectation beyond each bound.
        drawn: for quantiles, and for means of the latency itself: a draw beyond each bound.
    """

    mean: Floats
    drawn: Floats


def impute(
    log_latency: Floats,
    censored: Bools,
    slices: Ints,
    fit: Callable[[Floats], Floats],
    seed: int = 0,
    steps: int = STEPS,
) -> Imputed:
    """Replace bounds by what lies beyond them; without bounds `fit` is never called and the labels are the given ones.

    Args:
        log_latency: log of the latency or of its lower bound, (n,).
        censored: which are bounds.
        slices: load slice of each row; residuals have a law for each that has enough rows.
        fit: labels → what a model fitted to them predicts for the same rows, in logs.
        seed: of the draws.
        steps: how often the model is fitted.

    >>> rng = np.random.default_rng(0)
    >>> true = rng.normal(0.0, 1.0, 5000)
    >>> bound = rng.normal(0.5, 1.0, 5000)  # cuts off a third
    >>> known = np.minimum(true, bound)
    >>> found = impute(known, true > bound, np.zeros(5000, dtype=int), lambda labels: np.full(5000, labels.mean()))
    >>> print(f"{known.mean():.2f} {known[true <= bound].mean():.2f} {found.mean.mean():.2f} {true.mean():.2f}")
    -0.34 -0.41 0.00 -0.00
    """
    if not censored.any():
        return Imputed(log_latency, log_latency)
    kaplan_meier(log_latency, censored)
    labels = log_latency
    for _ in range(steps):
        predicted = fit(labels)
        residuals = log_latency - predicted
        means, drawn = log_latency.copy(), log_latency.copy()
        for rows, law in _laws(residuals, censored, slices):
            cut = rows & censored
            means[cut] = predicted[cut] + law.mean_beyond(residuals[cut])
            drawn[cut] = predicted[cut] + law.draw_beyond(residuals[cut], seed)
        labels = means
    return Imputed(labels, drawn)


def _laws(residuals: Floats, censored: Bools, slices: Ints) -> list[tuple[Bools, Survival]]:
    pooled = kaplan_meier(residuals, censored)
    laws = []
    for of in np.unique(slices[censored]):
        rows = slices == of
        enough = (rows & ~censored).sum() >= LEAST_EVENTS
        laws.append((rows, kaplan_meier(residuals[rows], censored[rows]) if enough else pooled))
    return laws
