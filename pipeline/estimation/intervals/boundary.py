"""The boundary that a sum of bounded deviations crosses at any time with small probability only."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc, gammaln

__all__ = ["crossing", "log_wealth", "running_lower"]

Floats = NDArray[np.float64]

_RHO: Final = 1.0  # where the mixture is the narrowest: at a sum of squares of about 1, that of vw-estimators
_ALONE: Final = math.log(gammainc(_RHO, _RHO)) + math.lgamma(_RHO)
_POINTS: Final = 512  # of the table that Newton's steps start from
_STEPS: Final = 2  # to the digits of a float, from the table


def running_lower(values: Floats, scale: float, error: float) -> Floats:
    """Return a lower bound, at every n at once, of the running average of the values' conditional means.

    Formula: with deviations dᵢ = (zᵢ − ẑᵢ) / scale ≥ −1 of a guess ẑᵢ from what came before, exp(λ Σ (zᵢ − νᵢ) / scale
    − (−log(1 − λ) − λ) Σ dᵢ²) is for every λ in [0, 1) no more than 1 on average, at any time; so is its mixture over a
    gamma density of λ cut at 1, which has a closed form. The bound is the average at which that mixture is 1 / error.

    Values may depend on each other in any way, and their means νᵢ may move.

    Args:
        values: each at least 1 − scale, in order of arrival, along the last axis, shape (…, n).
        scale: 1 or more.
        error: probability that the bound is ever above the running average.

    Reference: Fan, Grama and Liu 2015; Howard et al. 2021, proposition 9 (gamma-exponential mixture); Waudby-Smith, Wu,
    Ramdas, Karampatziakis and Mineiro, arXiv:2210.10768.

    >>> running_lower(np.full(1000, 0.5), scale=1.0, error=0.025)[[9, 99, 999]].round(3)
    array([-0.003,  0.45 ,  0.495])
    """
    n = np.arange(1, values.shape[-1] + 1, dtype=np.float64)
    sums = np.cumsum(values, axis=-1)
    before = np.concatenate([np.zeros_like(sums[..., :1]), sums[..., :-1]], axis=-1)
    # A guess above 1 would let a deviation fall below −1, and the bound would not hold.
    guess = np.minimum((before + 0.5) / n, 1.0)
    squares = np.cumsum(((values - guess) / scale) ** 2, axis=-1)
    return np.asarray((sums - scale * crossing(squares, error)) / n)


def crossing(squares: Floats, error: float) -> Floats:
    """Return the sum of deviations at which the wealth is 1 / error, for each sum of squares.

    >>> crossing(np.array([0.0, 100.0]), 0.025).round(2)
    array([ 5.03, 37.53])
    """
    goal = -math.log(error)
    table = np.concatenate([[0.0], np.geomspace(1e-3, max(1.0, float(squares.max(initial=0.0))), _POINTS)])
    tabled = _solved(table, np.full(len(table), goal), goal, 60)
    return _solved(squares, np.interp(squares, table, tabled), goal, _STEPS)


def log_wealth(sums: Floats, squares: Floats) -> Floats:
    """Return the logarithm of the mixture for a sum of deviations and a sum of their squares, of equal shape.

    Formula: s + v + ρ log ρ − (v + ρ) log(s + v + ρ) + log γ(v + ρ, s + v + ρ) − log γ(ρ, ρ), γ the lower incomplete
    gamma function.
    """
    a, x = squares + _RHO, sums + squares + _RHO
    return np.asarray(x - _RHO + _RHO * math.log(_RHO) - a * np.log(x) + _log_gamma(a, x) - _ALONE)


def _log_gamma(a: Floats, x: Floats) -> Floats:
    """Return the logarithm of the lower incomplete gamma function, not regularised."""
    return np.asarray(np.log(gammainc(a, x)) + gammaln(a))


def _solved(squares: Floats, start: Floats, goal: float, steps: int) -> Floats:
    """Solve log wealth = goal for the sum by Newton's steps; the log wealth grows and is convex in it."""
    found, a = start, squares + _RHO
    for _ in range(steps):
        x = found + a
        log_x, log_gamma = np.log(x), _log_gamma(a, x)
        wealth = x - _RHO + _RHO * math.log(_RHO) - a * log_x + log_gamma - _ALONE
        slope = 1 - a / x + np.exp((a - 1) * log_x - x - log_gamma)
        found = np.maximum(found - (wealth - goal) / slope, 0.0)
    return np.asarray(found)
