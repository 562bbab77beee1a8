"""A full fit: measured on the newest requests, judged against the champion, then fitted to all of the window."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from lodestar.models.dataset import TrainingData, continues
from lodestar.models.evaluation.held_out import evaluate
from lodestar.models.fit import Curve, fit, require_rows
from lodestar.models.latency import LatencyModel
from lodestar.models.parameters import Parameters
from lodestar.models.registry.current import Trained
from lodestar.models.registry.gate_evidence import evidence_of
from lodestar.models.registry.promotion import Verdict, golden_check, judge
from lodestar.models.registry.record import record_of
from lodestar.models.robust import stalls
from lodestar.models.rows import Rows
from lodestar.models.uncertainty.calibrate import calibrate

__all__ = ["TRAINING_SHARE", "Outcome", "full_fit"]

TRAINING_SHARE: Final = 0.7  # of the requests, in dispatch order; the rest measures


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one target.

    Attributes:
        mode: 'fitted' (full window), 'extended' (trees added), 'windowed' (a sliding window), 'refitted' (leaves only),
            'scored' (nothing fitted, but the quantiles were calibrated) or 'unchanged' (nothing new).
        reason: why this mode.
        verdict: of the promotion gate; None where nothing was fitted.
        trained: the new model, also where it was refused; None where nothing was fitted.
        metrics: of the held-out twin on the newest requests.
        curve: error by boosting round.
        rows: what was learned from.
    """

    mode: str
    reason: str
    verdict: Verdict | None = None
    trained: Trained | None = None
    metrics: dict[str, Any] | None = None
    curve: Curve | None = None
    rows: Rows | None = None

    @property
    def promoted(self) -> bool:
        """Whether the model of this target changed."""
        return self.verdict is not None and self.verdict.promoted


def full_fit(
    data: TrainingData, target: str, parameters: Parameters, seed: int, current: Trained | None, reason: str
) -> Outcome:
    """Fit without the newest requests, follow these in time and judge; then fit the same recipe with them.

    The twin without the newest requests is calibrated by them as they finish; the model takes that calibration over.
    """
    rows = data.rows[target]
    training, newest = rows.split_share(TRAINING_SHARE)
    require_rows(training, target, f"holding out the newest {1 - TRAINING_SHARE:.0%} and those unfinished at the cut")
    twin, curve = fit(training, target, parameters, seed, watch=newest)
    quantiles_ms, calibrated = calibrate(twin, newest)
    learned = training.last(parameters.window_requests)
    same_history = current is None or continues(data, current.record)
    evidence = evidence_of(twin, learned, newest, current, same_history, quantiles_ms)
    metrics = evaluate(twin, learned, newest, quantiles_ms)
    model = replace(fit(rows, target, parameters, seed)[0], conformal=calibrated.conformal.restarted())
    window = rows.last(parameters.window_requests)
    record = record_of(data, window, int(newest.request_index[0]), parameters, seed, metrics)
    record["window"]["stalls"] = _stalls(model, window.only(~window.censored))
    verdict = judge(evidence, golden_check(model, record["feature_ranges"]))
    return Outcome("fitted", reason, verdict, Trained(model, twin, record), metrics, curve, rows)


def _stalls(model: LatencyModel, measured: Rows) -> int:
    return int(stalls(np.log(measured.latency_ms / model.predict(measured.features))).sum())
