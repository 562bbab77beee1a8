"""What the mean cost of a running system would do if a policy took over a little of the traffic, from one log alone.

Estimand: *closed-loop derivative at the logging policy*, d/dε V((1 − ε) π_b + ε π) at ε = 0, with V the long-run mean
cost. It counts what a decision does to all later requests through queues and caches, as no one-step value does. It says
which way the first step leads and how steeply, NOT where the road ends: V(π) = V(π_b) + D is wrong, often by far.

D_H(π) = mean_i (w_i − 1) G_i^H with G_i^H = Σ_{k<H} (y_{i+k} − ȳ) over all later requests of all instances, and weights
w_i = π(a_i|x_i) / p_i of a single decision, self-normalised; no products of weights. It is the performance-difference
lemma to first order at π_b, with the sum cut off at H requests; H = 1 is the contrast of snipw with the logged mean,
which is blind to everything later. What is cut off makes D_H short; what is added makes it noisier, as √H.

References: Kakade and Langford 2002 (performance-difference lemma); Farias, Li, Peng and Zheng 2022 (truncated Q of one
system that mixes two policies).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError, DataError
from lodestar.pipeline.estimation.beyond.plateau import errors_of, plateau
from lodestar.pipeline.estimation.blocks import block_of

__all__ = ["ESTIMAND", "DerivativePath", "contrast", "derivative", "horizons_of"]

ESTIMAND: Final = "closed-loop derivative at the logging policy"
NOTE: Final = (
    "the slope at the logging policy: right for a small share of the traffic, wrong if it is extrapolated to all of it"
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: The longest horizon is this part of the log, so that there are windows of it to compare.
_LONGEST: Final = 50
#: A block is so many times the longest horizon at least: windows that overlap stand in one block, nearly all of them.
_HORIZONS_A_BLOCK: Final = 4
#: In a queue with 20,000 requests near saturation, ± 2 errors of the chosen horizon itself cover the truth in 77 of 100
#: logs, ± 2 errors of a horizon four times as long in 93.
_CAREFUL: Final = 4
_FEWEST: Final = 100


@dataclass(frozen=True, slots=True)
class DerivativePath:
    """Estimates over a grid of horizons, all from the same requests, so that they differ by the horizon alone.

    Attributes:
        horizons: numbers of requests that count from each decision on, increasing, shape (k,).
        values: the estimate at each, in the unit of the cost, shape (k,).
        ses: their standard errors by blocks, shape (k,).
        chosen: place of the horizon that is the answer: the first that all later ones agree with.
        requests: whose decisions are compared.
        blocks: that the standard errors rest on; use Student's t with one less.
        notes: what a reader must know of it, sentences without a full stop.
    """

    horizons: Ints
    values: Floats
    ses: Floats
    chosen: int
    requests: int
    blocks: int
    notes: tuple[str, ...] = ()

    @property
    def horizon(self) -> int:
        """The chosen horizon, in requests."""
        return int(self.horizons[self.chosen])

    @property
    def value(self) -> float:
        """The estimate at the chosen horizon."""
        return float(self.values[self.chosen])

    @property
    def se(self) -> float:
        """Its standard error, that of a horizon up to four times as long.

        A path that seems to rest may still move by what luck hides, and the choice of the place looked at the path.
        """
        return float(self.ses[np.searchsorted(self.horizons, _CAREFUL * self.horizon, side="right") - 1])

    def to_dict(self) -> dict[str, Any]:
        """Return the path and what was chosen, ready for JSON."""
        return {
            "estimand": ESTIMAND,
            "value": self.value,
            "se": self.se,
            "horizon": self.horizon,
            "path": [
                {"horizon": int(horizon), "value": float(value), "se": float(se)}
                for horizon, value, se in zip(self.horizons, self.values, self.ses, strict=True)
            ],
            "requests": self.requests,
            "blocks": self.blocks,
            "notes": list(self.notes),
        }


def derivative(
    cost: Floats, w: Floats, horizons: Ints | None = None, block: int | None = None, known: Floats | None = None
) -> DerivativePath:
    """Estimate D_H towards a policy over a grid of horizons, and choose one where the path comes to rest.

    Needs right propensities above 0 wherever the policy may choose, and a log of one system whose requests all stand in
    it in order of arrival: costs of requests that are left out are costs that nobody pays. Costs must not depend on
    what is decided later.

    Args:
        cost: of each request, in order of arrival, shape (n,).
        w: importance weight of each decision, target probability over propensity, shape (n,).
        horizons: to try, in requests; None: 1, 2, 3, 4, 6, 8, 12, … to a fiftieth of the log.
        block: consecutive requests that count as one, but no fewer than four of the longest horizon; None: `block_of`
            the log.
        known: of each decision, what was known before it, such as how much was in flight, shape (n, k). What it
            foretells of G is taken off, by least squares: (w − 1) times it is 0 in the mean, and so less noise is left.

    Raises:
        DataError: too few requests, a cost that is missing, or no decision that the policy shares.
        ConfigError: horizons or blocks that do not fit the log.

    >>> random = np.random.default_rng(0)
    >>> left = random.random(10_000) < 0.5
    >>> cost = 1.0 * left + 2.0 * np.append(False, left[:-1])  # going left costs 1 now, and 2 the next request
    >>> path = derivative(cost, 2.0 * left)  # the policy always goes left
    >>> print(f"{path.values[0]:.1f} at once, {path.values[1]:.1f} with the next request")
    0.5 at once, 1.5 with the next request
    """
    return contrast(cost, w, np.ones(len(cost)), horizons, block, known)


def contrast(
    cost: Floats,
    w: Floats,
    against: Floats,
    horizons: Ints | None = None,
    block: int | None = None,
    known: Floats | None = None,
) -> DerivativePath:
    """Estimate Σ w G^H / Σ w − Σ v G^H / Σ v for two sets of weights over a grid of horizons, as `derivative` does.

    Args:
        cost: shape (n,).
        w: weights of the decisions, shape (n,).
        against: the weights v, shape (n,).
        horizons: as for `derivative`.
        block: as for `derivative`.
        known: as for `derivative`.
    """
    _check(cost, w, against, known)
    n = len(cost)
    horizons = horizons_of(n) if horizons is None else np.unique(np.asarray(horizons, dtype=np.int64))
    if not (len(horizons) and horizons[0] >= 1 and horizons[-1] <= n // 2):
        raise ConfigError(f"horizons {horizons.tolist()}; expected 1 to {n // 2}, half of {n} requests")
    longest = int(horizons[-1])
    m = n - longest + 1
    block = max(block_of(m) if block is None else block, _HORIZONS_A_BLOCK * longest)
    if -(-m // block) < 2:
        raise ConfigError(f"block {block} does not fit; expected at least two blocks in {m} requests. Shorten horizons")
    values, parts = _contrasts(cost, w[:m], against[:m], horizons, block, None if known is None else known[:m])
    chosen = plateau(values, parts)
    notes = [NOTE]
    if longest > 1:
        notes.append(f"the last {longest - 1} of {n} decisions are left out: their later requests are not all logged")
    if chosen == len(horizons) - 1 and len(horizons) > 1:
        notes.append(f"no plateau up to {longest} requests: what comes later still moves it; log more requests")
    return DerivativePath(horizons, values, errors_of(parts), chosen, m, len(parts), tuple(notes))


def horizons_of(requests: int) -> Ints:
    """Return the default grid: powers of 2 and what lies midway, to a fiftieth of the log.

    >>> horizons_of(1000).tolist()
    [1, 2, 3, 4, 6, 8, 12, 16]
    """
    powers = 2 ** np.arange(0, 1 + max(1, requests // _LONGEST).bit_length(), dtype=np.int64)
    grid = np.unique(np.concatenate([powers, 3 * powers // 2]))
    return np.asarray(grid[grid <= max(1, requests // _LONGEST)])


def _contrasts(
    cost: Floats, w: Floats, against: Floats, horizons: Ints, block: int, known: Floats | None
) -> tuple[Floats, Floats]:
    """Return the value at every horizon, shape (k,), and what blocks contribute to its error, shape (blocks, k)."""
    m = len(w)
    total = np.concatenate([[0.0], np.cumsum(cost - cost.mean())])
    starts = np.arange(0, m, block)
    values, parts = np.empty(len(horizons)), np.empty((len(starts), len(horizons)))
    sides = [(weight, np.add.reduceat(weight, starts), weight.sum()) for weight in (w, against)]
    foretold = _Foretold(known, w / w.mean() - against / against.mean())
    for k, horizon in enumerate(horizons.tolist()):
        later = foretold.taken_off(total[horizon : horizon + m] - total[:m])
        of_sides = []
        for weight, in_block, all_of_it in sides:
            weighted = np.add.reduceat(weight * later, starts)
            mean = weighted.sum() / all_of_it
            of_sides.append((mean, (weighted - mean * in_block) / all_of_it))
        values[k] = of_sides[0][0] - of_sides[1][0]
        parts[:, k] = of_sides[0][1] - of_sides[1][1]
    return values, parts * np.sqrt(len(starts) / (len(starts) - 1))


class _Foretold:
    """What is known before a decision, to take off what it foretells, with the least noise left in Σ e (G − x β)."""

    def __init__(self, known: Floats | None, e: Floats) -> None:
        self._known = None if known is None else known - known.mean(axis=0)
        if self._known is not None:
            # A constant stands beside it, since the mean of G is taken off anyway.
            self._weighted = np.column_stack([e**2, self._known * (e**2)[:, None]])
            square = self._weighted.T @ np.column_stack([np.ones(len(e)), self._known])
            self._inverse = np.linalg.pinv(square, hermitian=True)

    def taken_off(self, later: Floats) -> Floats:
        if self._known is None:
            return later
        return np.asarray(later - self._known @ (self._inverse @ (self._weighted.T @ later))[1:])


def _check(cost: Floats, w: Floats, against: Floats, known: Floats | None) -> None:
    if len(cost) < _FEWEST:
        raise DataError(f"{len(cost)} requests are too few to see what later ones pay; expected {_FEWEST} or more")
    if not np.isfinite(cost).all():
        raise DataError(
            f"{(~np.isfinite(cost)).sum()} of {len(cost)} requests have no cost; expected one for each, since leaving "
            "requests out hides what they paid. Log the latency of every request"
        )
    if known is not None and not (len(known) == len(cost) and known.ndim == 2 and np.isfinite(known).all()):
        raise DataError(f"known has shape {known.shape}; expected ({len(cost)}, k), all of it finite")
    for weight in (w, against):
        if weight.shape != cost.shape or not (np.isfinite(weight) & (weight >= 0)).all():
            raise DataError(f"weights have shape {weight.shape}; expected {cost.shape}, each finite and 0 or more")
        if not weight[: len(cost) // 2].sum() > 0:
            raise DataError("the policy shares none of the logged decisions of the first half; log one that explores")
