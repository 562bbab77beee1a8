"""What a search found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from lodestar.models.train import TrainReport

__all__ = ["TuneReport"]


@dataclass(frozen=True, slots=True)
class TuneReport:
    """What a search found, and what became of the model trained with it.

    A value is the mean loss as a share of linear regression's (of the logged choices' mean latency where the metric is
    'regret'): below 1 is better than that.

    Attributes:
        dataset: its name.
        target: that was tuned.
        metric: loss, see `losses.ERRORS` and `regret.Regret`.
        meaning: of the metric, in words.
        study: name in the workspace's journal; it holds the trials of this very data, metric, seed and limit.
        rows: that took part, the newest of those not held out.
        trials: finished trials in the study now, with those stopped and refused.
        trials_before: of these, finished before this call.
        pruned: of these, stopped because they were worse than the best on the same blocks.
        infeasible: of these, refused because a decision would take longer than the limit.
        interrupted: trials that were given up by this call because their process had died.
        best_value: of the best trial in the search, flattered by being the best of many.
        default_value: of the default parameters in the search; None where they are slower than the limit.
        finalists: the best trials and the defaults, measured again with fresh seeds and cuts, the best first.
        reason: why the winner won.
        is_default: whether the defaults won.
        best_parameters: of the winner.
        newest: the best finalist but the defaults ('trial': its number, 'best': its value) and the 'defaults' on the
            newest requests, which took no part in the search, and 'low' and 'high' of their difference. It decides
            nothing: it shows what is left of the gain.
        decision: microseconds of a decision over eight candidates: 'limit_us', 'estimated_us', 'measured_us'.
        training: what became of the model trained with the winner's parameters.
    """

    dataset: str
    target: str
    metric: str
    meaning: str
    study: str
    rows: int
    trials: int
    trials_before: int
    pruned: int
    infeasible: int
    interrupted: int
    best_value: float
    default_value: float | None
    finalists: list[dict[str, Any]]
    reason: str
    is_default: bool
    best_parameters: dict[str, Any]
    newest: dict[str, float]
    decision: dict[str, float]
    training: TrainReport

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TuneReport:
        """Read what `to_dict` returned."""
        return cls(**(values | {"training": TrainReport(**values["training"])}))
