"""When an online router learns, and from what: the newest requests, and older ones kept for their variety."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.schema import TPOT_MS, TTFT_MS
from lodestar.models.fit import MIN_ROWS, fit
from lodestar.models.latency import LatencyModel
from lodestar.models.network.replay_buffer import k_center
from lodestar.models.online.finished import Finished
from lodestar.models.online.learner_settings import LearnerSettings
from lodestar.models.parameters import Parameters
from lodestar.models.rows import Rows
from lodestar.models.shipping.names import model_key
from lodestar.models.uncertainty.drift import Adwin

__all__ = ["Learner", "rows_for", "train_models"]

Floats = NDArray[np.float64]

#: A kind whose requests do not finish delays the first model to this many times the requests it would take.
_PATIENCE: Final = 10


@dataclass(slots=True)
class Learner:
    """Two pools of finished requests.

    Attributes:
        settings: when, and how much.
        kinds: of the instances that are routed to: the first model waits until it can be fitted to each of them, since
            one that has seen the fast ones alone would flood the slow ones.
        recent: the newest.
        diverse: what the recent pool pushed out, thinned by greedy k-center on standardised features.
        new: rows since the last training.
        trained_at_s: time of the last training; the first row's time before it.
        adwin: of the log errors.
        drifted: whether it has found a change since the last training.
        suspected: whether the alarm before this one has led to a refit on all that is kept.
    """

    settings: LearnerSettings = field(default_factory=LearnerSettings)
    kinds: tuple[str, ...] = ()
    recent: Finished = field(default_factory=Finished.empty)
    diverse: Finished = field(default_factory=Finished.empty)
    new: int = 0
    trainings: int = 0
    trained_at_s: float = float("nan")
    adwin: Adwin = field(default_factory=Adwin)
    drifted: bool = False
    suspected: bool = False

    def add(self, finished: Finished, predicted_ms: Floats | None = None) -> None:
        """Take in finished requests.

        Args:
            finished: in the order in which they became known.
            predicted_ms: the TTFT that was predicted of each at its decision, NaN where none was; for drift.
        """
        if not len(finished):
            return
        if np.isnan(self.trained_at_s):
            self.trained_at_s = float(finished.finished_at_s[0])
        joined = Finished.joined([self.recent, finished])
        out = max(len(joined) - self.settings.recent_requests, 0)
        self._push_out(joined.only(slice(None, out)))
        self.recent, self.new = joined.only(slice(out, None)), self.new + len(finished)
        if predicted_ms is not None and self.settings.drift:
            self._watch(finished, predicted_ms)

    def due(self, now_s: float) -> str | None:
        """Say why it is time to train; None: it is not.

        >>> Learner().due(60.0) is None
        True
        """
        if self.trainings == 0:
            return f"{self.new} requests have finished" if self._enough() else None
        if self.drifted:
            return "the errors have changed"
        # At first a model is due whenever the requests have doubled.
        if self.new >= min(self.settings.refit_requests, len(self.recent) - self.new):
            return f"{self.new} new requests"
        if self.new and 0.0 < self.settings.refit_s <= now_s - self.trained_at_s:
            return f"{now_s - self.trained_at_s:.0f} s since the last"
        return None

    def training_rows(self, now_s: float) -> Finished:
        """Return what to train on, and count the training as begun."""
        self.new, self.trained_at_s, self.drifted = 0, now_s, False
        self.adwin = Adwin()  # another model's errors have another mean
        self.trainings += 1
        return Finished.joined([self.diverse, self.recent])

    def _enough(self) -> bool:
        """Say whether a first model can be fitted for every kind of instance, or waiting for one has no end."""
        least = max(self.settings.first_fit_requests, MIN_ROWS)
        few = [kind for kind in self.kinds if int((self.recent.kind == kind).sum()) < MIN_ROWS]
        return self.new >= (_PATIENCE * least if few else least)

    def _push_out(self, old: Finished) -> None:
        pool = Finished.joined([self.diverse, old])
        if len(pool) > self.settings.diverse_requests:
            pool = pool.only(np.sort(k_center(_standardised(pool.features), self.settings.diverse_requests)))
        self.diverse = pool

    def _watch(self, finished: Finished, predicted_ms: Floats) -> None:
        known = ~finished.censored & (finished.ttft_ms > 0) & (predicted_ms > 0)
        errors = np.log(finished.ttft_ms[known] / predicted_ms[known])
        if any([self.adwin.update(float(error)) for error in errors]):
            self.drifted = True
            if self.suspected:  # a model that has seen the change is wrong as well: what was before it teaches no more
                self.recent, self.diverse = self.recent.last(max(self.adwin.width, MIN_ROWS)), Finished.empty()
            self.suspected = not self.suspected


def train_models(
    rows: Finished,
    parameters: Parameters | None = None,
    seed: int = 0,
    targets: tuple[str, ...] = (TTFT_MS, TPOT_MS),
    heads: bool = False,
) -> dict[str, LatencyModel]:
    """Fit a model of each target for all instances, and one for each kind that has rows enough.

    Args:
        rows: to learn from.
        parameters: of the trees.
        seed: of their samples.
        targets: of these, the ones that have rows.
        heads: whether quantiles get trees of their own.

    Returns:
        Models by `model_key(target, kind)`; none of a target with fewer than 50 rows.
    """
    parameters = parameters or Parameters()
    kinds = sorted(set(rows.kind.tolist()) - {""})
    models: dict[str, LatencyModel] = {}
    for target in targets:
        for kind in ["", *(kinds if len(kinds) > 1 else [])]:
            its = rows_for(rows.only(rows.kind == kind) if kind else rows, target)
            if int((~its.censored).sum()) < MIN_ROWS:
                continue
            models[model_key(target, kind)] = fit(its, target, parameters, seed, heads=heads)[0]
    return models


def rows_for(rows: Finished, target: str) -> Rows:
    """Return the rows that have this target, as the fit takes them."""
    latency_ms = {TTFT_MS: rows.ttft_ms, TPOT_MS: rows.tpot_ms}[target]
    with np.errstate(invalid="ignore"):
        its = rows.only(latency_ms > 0)
    latency_ms = latency_ms[latency_ms > 0]
    return Rows(
        request_index=np.arange(len(its)),
        features=its.features,
        latency_ms=latency_ms,
        censored=its.censored,
        propensity=np.full(len(its), np.nan),
        arrived_at_s=its.decided_at_s,
        finished_at_s=its.finished_at_s,
        requests=len(rows),
        excluded={},
    )


def _standardised(features: Floats) -> Floats:
    known = ~np.isnan(features)
    count = np.maximum(known.sum(axis=0), 1)
    filled = np.where(known, features, 0.0)
    centred = np.where(known, features - filled.sum(axis=0) / count, 0.0)
    spread = np.sqrt((centred**2).sum(axis=0) / count)
    return np.asarray(centred / np.where(spread > 0, spread, 1.0))
