"""A fitted cluster: the engine of every instance, how sure that is, and what it rests on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.calibration.stretch import TRAINING_SHARE

__all__ = ["Calibration", "InstanceSpeed"]


@dataclass(frozen=True, slots=True)
class InstanceSpeed:
    """How long the steps of one instance are.

    Attributes:
        instance: its name.
        estimate: times as long as those of the fit; None where it has too few latencies.
        interval: 95 % of it.
        used: times as long as those of the typical instance, as far as to be believed.
    """

    instance: str
    estimate: float | None
    interval: tuple[float, float] | None
    used: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted cluster.

    Attributes:
        engine: the typical instance's.
        loss: of the fit on the training part, without the prior.
        identified: whether the log tells each coefficient and limit.
        notes: what was taken from elsewhere, what the log does not tell, which instances differ.
        evaluations: replays that the search took.
        engines: one for each instance of the log.
        draws: the same from draws of the data, for the uncertainty of the fit to be carried on.
        intervals: coefficient or limit → 95 % of it.
        speeds: of each instance, where there is more than one.
        speeds_p_value: how often instances that are alike would differ so much; None where that was not tested.
    """

    engine: EngineModel
    loss: float
    identified: dict[str, bool]
    notes: list[str]
    evaluations: int
    engines: list[EngineModel] = field(default_factory=list)
    draws: list[list[EngineModel]] = field(default_factory=list)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    speeds: list[InstanceSpeed] = field(default_factory=list)
    speeds_p_value: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return how the fit went, ready for JSON."""
        return {
            "loss": self.loss,
            "identified": self.identified,
            "intervals": {name: list(bounds) for name, bounds in self.intervals.items()},
            "speeds": [
                {
                    "instance": speed.instance,
                    "estimate": speed.estimate,
                    "ci95": list(speed.interval) if speed.interval else None,
                    "used": speed.used,
                }
                for speed in self.speeds
            ],
            "speeds_p_value": self.speeds_p_value,
            "notes": self.notes,
            "evaluations": self.evaluations,
            "draws": len(self.draws),
            "training_share": TRAINING_SHARE,
        }
