"""Labelled rows in dispatch order, and splits in time that let no outcome leak into an earlier model."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.data.log import RequestLog
from lodestar.data.reconstruction.latencies import has_no_times
from lodestar.data.reconstruction.reconstruct import e2e_ms_of, tpot_ms_of
from lodestar.data.schema import E2E_MS, TPOT_MS, TTFT_MS

__all__ = ["Rows", "derived_notes", "rows_of"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rows:
    """What a model learns from: the chosen candidate of each request and the latency that followed.

    Attributes:
        request_index: position in the dataset, increasing.
        features: shape (n, len(FEATURES)).
        latency_ms: the label.
        censored: whether the label is only a lower bound: the request was cancelled or timed out before.
        propensity: probability of the choice, NaN where it is not known.
        arrived_at_s: when the decision was made.
        finished_at_s: when the outcome was known.
        requests: how many requests the dataset has, with and without a label.
        excluded: why requests have no row → their positions in the dataset.
    """

    request_index: Ints
    features: Floats
    latency_ms: Floats
    censored: Bools
    propensity: Floats
    arrived_at_s: Floats
    finished_at_s: Floats
    requests: int
    excluded: dict[str, Ints]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.latency_ms)

    def only(self, keep: Bools) -> Rows:
        """Return the rows where `keep` holds."""
        return replace(
            self,
            request_index=self.request_index[keep],
            features=self.features[keep],
            latency_ms=self.latency_ms[keep],
            censored=self.censored[keep],
            propensity=self.propensity[keep],
            arrived_at_s=self.arrived_at_s[keep],
            finished_at_s=self.finished_at_s[keep],
        )

    def last(self, count: int | None) -> Rows:
        """Return the newest `count` rows, or all."""
        return self if count is None else self.only(np.arange(len(self)) >= len(self) - count)

    def newer_than(self, requests_seen: int) -> Rows:
        """Return the rows of the requests dispatched after the first `requests_seen`."""
        return self.only(self.request_index >= requests_seen)

    def split(self, cut: int) -> tuple[Rows, Rows]:
        """Split at request `cut`: those before it that had finished when it arrived, and those from it on.

        A request still running at the cut is in neither: its latency was not known then, and it is not new either.
        """
        later = self.only(self.request_index >= cut)
        if not len(later):
            return self, later
        cut_at_s = later.arrived_at_s[0]
        return self.only((self.request_index < cut) & (self.finished_at_s <= cut_at_s)), later

    def split_share(self, share: float) -> tuple[Rows, Rows]:
        """Split after this share of the requests between the first row and the last."""
        if not len(self):
            return self, self
        first, end = int(self.request_index[0]), int(self.request_index[-1]) + 1
        return self.split(first + int(share * (end - first)))


def rows_of(log: RequestLog, features: Floats, arrived_at_s: Floats, target: str) -> Rows:
    """Pair the features (n, k) of the chosen candidates with their latency; list the requests that have no pair.

    A request that was cancelled or timed out has the time until then as a lower bound, unless what is asked for had
    been measured before.
    """
    latency_ms, censored, lasted_ms = _labels(log, target)
    finished_at_s = arrived_at_s if has_no_times(log) else arrived_at_s + lasted_ms / 1000.0
    reasons = {
        "no decision": log.chosen < 0,
        f"no {target}": ~(latency_ms > 0),
        "no time of finish": np.isnan(finished_at_s),
    }
    excluded: dict[str, Ints] = {}
    usable = np.ones(len(log), dtype=np.bool_)
    for reason, without in reasons.items():
        excluded[reason] = np.flatnonzero(usable & without)
        usable &= ~without
    if not (usable & ~censored).any():
        raise DataError(
            f"dataset {log.dataset!r}: none of its {len(log)} requests can train {target} "
            f"({', '.join(f'{len(those)} with {reason}' for reason, those in excluded.items() if len(those))}"
            f"{f', {int(censored.sum())} cut off' if censored.any() else ''}); "
            "expected decisions with their outcomes. Ingest a log that has them"
        )
    every = Rows(
        request_index=np.arange(len(log)),
        features=features,
        latency_ms=latency_ms,
        censored=censored,
        propensity=log.propensity,
        arrived_at_s=arrived_at_s,
        finished_at_s=finished_at_s,
        requests=len(log),
        excluded=excluded,
    )
    return every.only(usable)


def _labels(log: RequestLog, target: str) -> tuple[Floats, Bools, Floats]:
    """Return the latency, whether it is a lower bound, and how long the request lasted (ms), each of shape (n,)."""
    complete = {TTFT_MS: log.ttft_ms, TPOT_MS: tpot_ms_of(log), E2E_MS: e2e_ms_of(log)}
    latency_ms, lasted_ms = complete[target], complete[E2E_MS]
    if not log.cut_off:
        return latency_ms, np.zeros(len(log), dtype=np.bool_), lasted_ms
    ended_ms = log.cut_off[E2E_MS]
    cut = ~np.isnan(ended_ms)
    before_ms = np.full(len(log), np.nan) if target == E2E_MS else log.cut_off[target]
    bound_ms = np.full(len(log), np.nan) if target == TPOT_MS else ended_ms  # when it ended says nothing of a TPOT
    censored = cut & np.isnan(before_ms) & ~np.isnan(bound_ms)
    return (
        np.where(cut, np.where(np.isnan(before_ms), bound_ms, before_ms), latency_ms),
        censored,
        np.where(cut, ended_ms, lasted_ms),
    )


def derived_notes(log: RequestLog) -> dict[str, str]:
    """Say for which requests E2E and TPOT were derived from what else the log has; empty where all are logged."""
    formulas = {
        E2E_MS: (log.e2e_ms, e2e_ms_of(log), "TTFT + TPOT × (output tokens − 1)"),
        TPOT_MS: (log.tpot_ms, tpot_ms_of(log), "(E2E − TTFT) / (output tokens − 1)"),
    }
    notes = {}
    for name, (logged, known, formula) in formulas.items():
        missing = np.isnan(logged)
        derived = int((missing & ~np.isnan(known)).sum())
        if derived:
            counts = f"{int(missing.sum())} of {len(log)} requests"
            notes[name] = f"not logged for {counts}: derived as {formula} for {derived} of them"
    return notes
