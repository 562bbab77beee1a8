"""A full fit: measured on the newest requests, judged against the current model, then fitted to all of the window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.current import Trained
from lodestar.models.dataset import TrainingData, ids_sha256
from lodestar.models.evaluate import evaluate
from lodestar.models.fit import Curve, fit
from lodestar.models.parameters import Parameters
from lodestar.models.promotion import Verdict, judge
from lodestar.models.rows import Rows

__all__ = ["TRAINING_SHARE", "Outcome", "full_fit", "record_of"]

TRAINING_SHARE: Final = 0.7  # of the requests, in dispatch order; the rest measures


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one target.

    Attributes:
        mode: 'fitted' (full window), 'extended' (trees added) or 'unchanged' (nothing to learn from).
        reason: why this mode.
        verdict: the comparison with the current model; None where nothing was fitted.
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
    """Fit without the newest requests, measure on them and judge; then fit the same recipe with them."""
    rows = data.rows[target]
    training, newest = rows.split_share(TRAINING_SHARE)
    held_out, curve = fit(training, target, parameters, seed, watch=newest)
    metrics = evaluate(held_out, training.last(parameters.window_requests), newest)
    verdict = judge(held_out, newest, current)
    model, _ = fit(rows, target, parameters, seed)
    window = rows.last(parameters.window_requests)
    record = record_of(data, window, int(newest.request_index[0]), parameters, seed, metrics)
    return Outcome("fitted", reason, verdict, Trained(model, held_out, record), metrics, curve, rows)


def record_of(
    data: TrainingData, window: Rows, held_out_from: int, parameters: Parameters, seed: int, metrics: dict[str, Any]
) -> dict[str, Any]:
    """Write down what a model has seen, so that the next training knows what is new and a router what is usual."""
    return {
        "requests_seen": len(data.request_ids),
        "seen_sha256": ids_sha256(data.request_ids),
        "data_fingerprint": data.fingerprint,
        "held_out_from": held_out_from,
        "parameters": parameters.to_dict(),
        "seed": seed,
        "window": {
            "rows": len(window),
            "first_request": int(window.request_index[0]),
            "last_request": int(window.request_index[-1]),
            "from_s": float(window.arrived_at_s[0]),
            "to_s": float(window.arrived_at_s[-1]),
            "excluded": window.excluded,
        },
        "feature_ranges": _ranges(window),
        "metrics": metrics,
    }


def _ranges(rows: Rows) -> dict[str, list[float] | None]:
    """Return the smallest and the largest value of each feature; None where it was never known."""
    ranges: dict[str, list[float] | None] = {}
    for name, column in zip(FEATURE_NAMES, rows.features.T, strict=True):
        known = column[~np.isnan(column)]
        ranges[name] = [float(known.min()), float(known.max())] if len(known) else None
    return ranges
