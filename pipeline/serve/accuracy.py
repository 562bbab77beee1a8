"""How well the served predictions hold: drift of the error, and the share below the stated P90."""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.schema import TTFT_MS
from lodestar.models.uncertainty.drift import Adwin
from lodestar.pipeline.serve.metrics import Metrics

if TYPE_CHECKING:
    from lodestar.models.online.brain import Brain

__all__ = ["Accuracy"]

Floats = NDArray[np.float64]

NEWEST: Final = 1000
_P90: Final = "p90"


class Accuracy:
    """Watches log(measured / predicted TTFT) of the newest outcomes, each against the model that decided it.

    A TTFT that is only a lower bound says nothing here and is left out.
    """

    def __init__(self, metrics: Metrics, newest: int = NEWEST) -> None:
        self._metrics = metrics
        self._adwin = Adwin()
        self._residuals: deque[float] = deque(maxlen=newest)
        self._below: deque[bool] = deque(maxlen=newest)
        self._lock = threading.Lock()

    def judge(self, brain: Brain, kinds: list[str], features: Floats, ttft_ms: Floats) -> None:
        """Take in outcomes of one model.

        Args:
            brain: the model that decided them.
            kinds: hardware of the instance that served each.
            features: of these instances at the decision, shape (n, len(FEATURES)).
            ttft_ms: measured, shape (n,), above 0.
        """
        with self._lock:
            self._judge(brain, kinds, features, ttft_ms)

    def _judge(self, brain: Brain, kinds: list[str], features: Floats, ttft_ms: Floats) -> None:
        for kind in set(kinds):
            rows = np.array([each == kind for each in kinds])
            scorer = brain.decider.targets.get(f"{TTFT_MS}@{kind}") or brain.decider.targets.get(TTFT_MS)
            if scorer is None:
                continue
            found = scorer.everything_ms(np.ascontiguousarray(features[rows]))
            residuals = np.log(ttft_ms[rows] / found["mean"])
            p90_ms = found.get(_P90)
            for k, residual in enumerate(residuals.tolist()):
                if not math.isfinite(residual):
                    continue
                self._residuals.append(residual)
                if p90_ms is not None:
                    self._below.append(bool(ttft_ms[rows][k] <= p90_ms[k]))
                if self._adwin.update(residual):
                    self._metrics.alarms.inc()
        self._tell()

    def _tell(self) -> None:
        if self._residuals:
            self._metrics.residual.set(sum(self._residuals) / len(self._residuals))
        if self._below:
            self._metrics.below_p90.set(sum(self._below) / len(self._below))
        self._metrics.judged.set(len(self._residuals))
