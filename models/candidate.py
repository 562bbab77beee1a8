"""A full fit: measured on the newest requests, judged against the current model, then fitted to all of the window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from lodestar.models.current import Trained
from lodestar.models.dataset import TrainingData, continues
from lodestar.models.evaluate import evaluate
from lodestar.models.fit import Curve, fit, require_rows
from lodestar.models.parameters import Parameters
from lodestar.models.promotion import Verdict, judge
from lodestar.models.record import record_of
from lodestar.models.rows import Rows

__all__ = ["TRAINING_SHARE", "Outcome", "full_fit"]

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
    require_rows(training, target, f"holding out the newest {1 - TRAINING_SHARE:.0%} and those unfinished at the cut")
    held_out, curve = fit(training, target, parameters, seed, watch=newest)
    metrics = evaluate(held_out, training.last(parameters.window_requests), newest)
    verdict = judge(held_out, newest, current, current is None or continues(data, current.record))
    model, _ = fit(rows, target, parameters, seed)
    window = rows.last(parameters.window_requests)
    record = record_of(data, window, int(newest.request_index[0]), parameters, seed, metrics)
    return Outcome("fitted", reason, verdict, Trained(model, held_out, record), metrics, curve, rows)
