"""Relative least squares with coefficients of at least zero, and what the rows say of each coefficient.

A row tells the shares of one measured time: its entries, times the coefficients, should sum to 1. So an error counts by
its ratio to the time measured, and short steps count as much as long ones.

Where the work itself is only estimated, its errors pull time from one coefficient to another (errors in variables).
Instruments, columns that go with the work and not with its errors, undo that: rows are first replaced by what the
instruments explain of them (two-stage least squares).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

__all__ = ["Shares", "bootstrap", "error_ratio", "held_out", "solve", "unidentified"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: How weakly a prior holds unless it counts as an observation: a coefficient twice its prior costs as much as an error
#: of 0.1 % in every row. It decides only what the rows leave open.
PRIOR_WEIGHT: Final = 1e-6
#: A column of which less than this share is not a mix of the others tells nothing of its own.
OWN_SHARE: Final = 0.02
#: Fewer rows with work of a kind than this tell nothing of its coefficient.
FEWEST_ROWS: Final = 5
#: A coefficient is known if its standard error is below this share of it.
KNOWN_RATIO: Final = 0.5


@dataclass(frozen=True, slots=True)
class Shares:
    """Rows to fit.

    Attributes:
        values: a row for each measured time, a column for each coefficient: the share of the time that one unit of the
            coefficient explains.
        prior: what the coefficients are held near.
        instruments: what goes with the work and not with the errors of its estimate; None where work is known.
        row_error: what a row errs by, if the prior is to count as one more observation of each coefficient, known to
            ±100 %.
        reach: how far from the prior a coefficient costs as much as one observation; None for the prior itself.
    """

    values: Floats
    prior: Floats
    instruments: Floats | None = None
    row_error: float | None = None
    reach: Floats | None = None

    def __len__(self) -> int:
        """Return how many rows there are."""
        return len(self.values)

    def taken(self, rows: Ints) -> Shares:
        """Return these rows, which may repeat."""
        instruments = None if self.instruments is None else self.instruments[rows]
        return replace(self, values=self.values[rows], instruments=instruments)

    def near(self, multiples: Floats) -> Shares:
        """Return the rows with multiples of the prior, which stays as weak as it is."""
        return replace(self, prior=self.prior * multiples, reach=self.reach if self.reach is not None else self.prior)


def solve(shares: Shares) -> Floats:
    """Return the coefficients of at least zero that bring every row's sum nearest to 1, held weakly near the prior.

    >>> shares = Shares(np.array([[0.5, 0.1], [0.5, 0.4], [0.25, 0.5]]), prior=np.array([1.0, 1.0]))
    >>> solve(shares).round(2)
    array([1.57, 0.98])
    """
    values, instruments = shares.values, shares.instruments
    if instruments is not None:
        values = instruments @ np.linalg.lstsq(instruments, values, rcond=None)[0]
    held = PRIOR_WEIGHT * max(len(values), 1) if shares.row_error is None else shares.row_error**2
    reach = shares.prior if shares.reach is None else shares.reach
    weight = np.sqrt(held) / np.where(reach > 0, reach, 1.0)
    rows = np.vstack([values, np.diag(weight)])
    return np.asarray(nnls(rows, np.concatenate([np.ones(len(values)), weight * shares.prior]))[0])


def bootstrap(shares: Shares, block: int, draws: int = 200, seed: int = 0) -> Floats:
    """Return the coefficients of `draws` resamples of circular blocks of rows: neighbouring rows err together.

    A prior that counts as an observation is drawn too, with mean and standard deviation as it is known, so that what
    only the prior holds comes out as uncertain as the prior.
    """
    rng, n = np.random.default_rng(seed), len(shares)
    starts = rng.integers(0, n, (draws, -(-n // block)))
    rows = ((starts[:, :, None] + np.arange(block)) % n).reshape(draws, -1)[:, :n]
    around = np.ones((draws, len(shares.prior)))
    if shares.row_error is not None:
        around = rng.exponential(size=around.shape)
    return np.array([solve(shares.taken(taken).near(drawn)) for taken, drawn in zip(rows, around, strict=True)])


def held_out(shares: Shares, groups: Ints) -> Floats:
    """Return each row's sum under the coefficients that the rows of the other groups give."""
    sums = np.empty(len(shares))
    for group in np.unique(groups):
        inside = groups == group
        sums[inside] = shares.values[inside] @ solve(shares.taken(np.flatnonzero(~inside)))
    return sums


def error_ratio(sums: Floats) -> float:
    """Return the mean absolute relative error.

    >>> round(error_ratio(np.array([1.1, 0.9, 1.0, 1.0])), 3)
    0.05
    """
    return float(np.abs(sums - 1).mean())


def unidentified(names: Sequence[str], shares: Floats, found: Floats, standard_errors: Floats) -> dict[str, str]:
    """Return the coefficients that the rows do not tell, each with the reason.

    >>> shares = np.array([[0.5, 0.5], [0.2, 0.2], [0.3, 0.3], [0.4, 0.4], [0.1, 0.1]])
    >>> unidentified(["a", "b"], shares, np.ones(2), np.zeros(2))["a"]
    'the rows do not tell it from b'
    """
    return {
        name: reason
        for k, name in enumerate(names)
        if (reason := _reason(k, names, shares, float(found[k]), float(standard_errors[k])))
    }


def _reason(k: int, names: Sequence[str], shares: Floats, found: float, standard_error: float) -> str | None:
    column, others = shares[:, k], np.delete(shares, k, axis=1)
    norm, rows = float(np.linalg.norm(column)), int((column > 0).sum())
    if rows < FEWEST_ROWS:
        return f"{rows} rows have work of its kind"
    mix = np.linalg.lstsq(others, column, rcond=None)[0]
    if np.linalg.norm(column - others @ mix) < OWN_SHARE * norm:
        shared = np.abs(mix) * np.linalg.norm(others, axis=0) > OWN_SHARE * norm
        partners = [name for name, part in zip(np.delete(names, k), shared, strict=True) if part]
        return f"the rows do not tell it from {' and '.join(partners)}"
    if standard_error > KNOWN_RATIO * found:
        return f"known only as {found:.3g} ± {standard_error:.2g}"
    return None
