"""Quantiles that cover what they say, under drift: what is added to the logarithm of a predicted quantile.

A quantile head is wrong by a ratio that depends on the load and changes with time. For every load slice the newest log
residuals, log(latency / raw head), form a sliding window; its quantile is the offset (split conformal prediction:
Vovk et al. 2005; by kinds of rows: Vovk 2012). Where outcomes are followed one by one, a feedback moves the level at
which the window is read:

    level = sigmoid(logit(share) + GAIN * miscount),  miscount = sum over the slice's rows of (missed - (1 - share))

This is adaptive conformal inference (Gibbs and Candès 2021) as an integrator (Angelopoulos, Candès, Tibshirani 2023),
with a gain in proportion to share * (1 - share): the miscount of every quantile is then an AR(1) of variance
1 / (2 * GAIN), and coverage over T rows differs from the share by miscount / T. Rows in flight count with the misses
that were aimed at, so labels that come late do not make the feedback swing (Smith 1957). Beyond its outermost scores
the window goes on as an exponential law (that of the latency itself is a power: Hill 1975, Weissman 1978): an offset
grows without limit while rows miss it, |miscount| stays below (largest score - lowest) / (GAIN * tail) and the rows in
flight whatever the rows are, and the long-run error of coverage is O(1 / T).

Rows that were cut off are lower bounds: the window's quantile is that of Kaplan and Meier (1958), and a bound below the
offset counts as missed by how likely it is to be by the same law. Where bounds lie far beyond all that was measured, as
in an outage, a tail fitted to them is of any length. Offsets then go no farther beyond the last measured score than the
measured ones span, or to the largest bound, which is known: the latency is at least that. While a slice's own bounds
hold it there, its feedback counts measured misses alone, so that its window, and nothing else, has to be lived down
once that is over. A slice whose rows are measured borrows the bounds of others with the pooled window; its feedback
makes up for that as for any other error, soon for a P50, and for a P99 over as many rows again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.models.slices import SLICES
from lodestar.models.uncertainty.conformal_window import follow, observe, offset_table

__all__ = ["QUANTILES", "Conformal"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

#: Name of a quantile → share of the latencies that stay at or below it.
QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
WINDOW_ROWS: Final = 350  # newest rows of a slice
POOLED: Final = len(SLICES)  # the window of all slices together
DECIMALS: Final = 6  # that scores are kept to


@dataclass(frozen=True, slots=True, eq=False)
class Conformal:
    """Offsets of log latency by load slice and quantile, with the newest scores that they come from.

    Attributes:
        quantiles: names, as in `QUANTILES`.
        scores: newest log residuals, oldest first; shape (len(SLICES) + 1, window, quantiles), the last for all slices
            together; NaN where there is none yet.
        censored: whether a score is only a lower bound, shape (len(SLICES) + 1, window).
        rows: scores in each window, shape (len(SLICES) + 1,).
        miscount: misses less those expected since the heads were grown, shape (len(SLICES), quantiles).
    """

    quantiles: tuple[str, ...]
    scores: Floats
    censored: Bools
    rows: Ints
    miscount: Floats

    @classmethod
    def fresh(cls, quantiles: tuple[str, ...] = tuple(QUANTILES), window_rows: int = WINDOW_ROWS) -> Conformal:
        """Return one that has seen nothing: all offsets are 0."""
        groups, count = POOLED + 1, len(quantiles)
        return cls(
            quantiles,
            np.full((groups, window_rows, count), np.nan),
            np.zeros((groups, window_rows), dtype=np.bool_),
            np.zeros(groups, dtype=np.int64),
            np.zeros((POOLED, count)),
        )

    def table(self) -> Floats:
        """Return the offsets to ship, shape (len(SLICES), quantiles): the windows' quantiles without the feedback.

        The feedback makes up for misses of the past; a table that stays in force for long would do so for too long.

        A slice with `rows` scores takes rows / (rows + 2 / (share * (1 - share))) of its own window's quantile, and the
        rest of that of all slices together: a P99 needs more rows than a P50 to stand alone.
        """
        out = np.empty((POOLED, len(self.quantiles)))
        offset_table(self._misses(), self.scores, self.censored, self.rows, np.zeros_like(self.miscount), out)
        return out

    def offsets(self, slices: Ints) -> Floats:
        """Return what to add to the log of each raw quantile, shape (n, quantiles): rows of `table`."""
        return self.table()[slices]

    def observe(self, slices: Ints, log_residuals: Floats, censored: Bools | None = None) -> Conformal:
        """Return the state after these rows, in the order in which they finished.

        Each row is judged by the offsets in force just before it.

        Args:
            slices: of each row, (n,), as `load_slice` returns them.
            log_residuals: log(latency / raw head), shape (n, quantiles).
            censored: whether the latency is only a lower bound, (n,); none if left out.

        Raises:
            DataError: a residual is not finite, or shapes differ.

        >>> state = Conformal.fresh(("p90",))
        >>> slow = state.observe(np.zeros(100, dtype=np.int64), np.linspace(0.0, 1.0, 100)[:, None])
        >>> [round(float(x), 2) for x in slow.offsets(np.array([0, 3]))[:, 0]]
        [0.9, 0.9]
        """
        new, bounds = self._checked(slices, log_residuals, censored)
        after = self._copy()
        observe(slices, new, bounds, self._misses(), *after._arrays())
        return after

    def follow(
        self,
        slices: Ints,
        log_residuals: Floats,
        arrived_at_s: Floats,
        finished_at_s: Floats,
        censored: Bools | None = None,
    ) -> tuple[Floats, Conformal]:
        """Return the offsets that each row was stated, (n, quantiles), and the state when all have finished.

        This is prequential: the offsets of a row come from the rows that had finished when it arrived, and it is judged
        by them when it finishes. Rows are in order of arrival; the rest is as for `observe`.

        >>> log_residuals, arrived_at_s = np.full((4, 1), 0.4), np.arange(4.0)
        >>> state = Conformal.fresh(("p50",))
        >>> stated, _ = state.follow(np.zeros(4, dtype=np.int64), log_residuals, arrived_at_s, arrived_at_s + 1.5)
        >>> stated[:, 0].round(2).tolist()
        [0.0, 0.0, 0.4, 0.4]
        """
        nothing = np.zeros((0, len(self.quantiles)))
        times = arrived_at_s, finished_at_s
        stated, _, _, after = self.follow_on(slices, log_residuals, *times, nothing, nothing, np.inf, censored)
        return stated, after

    def follow_on(
        self,
        slices: Ints,
        log_residuals: Floats,
        arrived_at_s: Floats,
        finished_at_s: Floats,
        stated: Floats,
        aims: Floats,
        until_s: float,
        censored: Bools | None = None,
    ) -> tuple[Floats, Floats, Bools, Conformal]:
        """Go on with `follow` where it stopped: the first rows were stated before, and had not finished then.

        What is stated does not depend on where it stopped, as long as `until_s` is not after the next arrival.

        Args:
            slices: as for `follow`, like the next three.
            log_residuals: shape (n, quantiles).
            arrived_at_s: (n,).
            finished_at_s: (n,).
            stated: offsets of the first rows, (m, quantiles), m <= n; NaN for those that the feedback did not state,
                of which it counts no miss.
            aims: shares of misses that these aimed at, (m, quantiles).
            until_s: what finishes later is not learned.
            censored: (n,); none if left out.

        Returns:
            offsets and aims of all rows, each (n, quantiles); whether a row was learned, (n,); and the state then.
        """
        new, bounds = self._checked(slices, log_residuals, censored)
        after, first = self._copy(), len(stated)
        rest = np.full((len(new) - first, new.shape[1]), np.nan)
        offsets, aimed = np.concatenate([stated, rest]), np.concatenate([aims, rest])
        finishing = np.argsort(finished_at_s, kind="stable")
        times = np.stack([arrived_at_s, finished_at_s]).astype(np.float64)
        to = self._misses(), *after._arrays(), offsets, aimed
        done = follow(slices, new, bounds, first, times[0], times[1], finishing, float(until_s), *to)
        learned = np.zeros(len(new), dtype=np.bool_)
        learned[finishing[:done]] = True
        return offsets, aimed, learned, after

    def restarted(self) -> Conformal:
        """Return the same windows without a miscount: for heads grown anew, which are not to make up for the old ones.

        >>> missed = Conformal.fresh(("p90",)).observe(np.zeros(50, dtype=np.int64), np.ones((50, 1)))
        >>> round(float(missed.miscount[0, 0]), 1), float(missed.restarted().miscount[0, 0])
        (-4.0, 0.0)
        """
        after = self._copy()
        after.miscount[:] = 0.0
        return after

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON; `from_dict` gives back the very same state."""
        windows = [
            {
                "scores": self.scores[group, : self.rows[group]].tolist(),
                "censored": np.flatnonzero(self.censored[group, : self.rows[group]]).tolist(),
            }
            for group in range(POOLED + 1)
        ]
        return {
            "quantiles": list(self.quantiles),
            "slices": list(SLICES),
            "offsets": self.table().tolist(),
            "window_rows": self.scores.shape[1],
            "windows": windows,
            "miscount": self.miscount.tolist(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Conformal:
        """Read what `to_dict` wrote."""
        state = cls.fresh(tuple(values["quantiles"]), values["window_rows"])
        for group, window in enumerate(values["windows"]):
            count = len(window["scores"])
            state.rows[group] = count
            if count:
                state.scores[group, :count] = window["scores"]
                state.censored[group, window["censored"]] = True
        state.miscount[:] = values["miscount"]
        return state

    def _misses(self) -> Floats:
        return np.array([1.0 - QUANTILES[name] for name in self.quantiles])

    def _arrays(self) -> tuple[Floats, Bools, Ints, Floats]:
        return self.scores, self.censored, self.rows, self.miscount

    def _copy(self) -> Conformal:
        return Conformal(
            self.quantiles, self.scores.copy(), self.censored.copy(), self.rows.copy(), self.miscount.copy()
        )

    def _checked(self, slices: Ints, log_residuals: Floats, censored: Bools | None) -> tuple[Floats, Bools]:
        expected = len(slices), len(self.quantiles)
        unfit = int((~np.isfinite(log_residuals)).sum())
        if log_residuals.shape != expected or unfit:
            raise DataError(
                f"log residuals of shape {log_residuals.shape}, {unfit} of them not finite; expected {expected}, all "
                "finite. Leave out the rows without a latency"
            )
        bounds = np.zeros(len(slices), dtype=np.bool_) if censored is None else np.asarray(censored, dtype=np.bool_)
        new = np.ascontiguousarray(log_residuals, dtype=np.float64)
        return new.round(DECIMALS), bounds
