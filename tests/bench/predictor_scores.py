"""One predictor on one split: every metric of the tables, averaged over seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from predictor_models import PREDICTORS, Predict
from predictor_splits import Split

from lodestar.models.evaluation.parts import covered_parts, pinball_parts, point_parts
from lodestar.models.evaluation.ranking import Choices, rank_parts

__all__ = ["BETTER", "METRICS", "RANKING", "Score", "score"]

Floats = NDArray[np.float64]

#: Metrics of a row, and those of a decision.
METRICS = ("mae_ms", "r2_log", "p90_pinball_ms", "p90_coverage")
RANKING = ("ratio_correlation", "rank_correlation", "cost_correlation", "snips")
#: 1 where more is better, -1 where less is; coverage is told, not ranked.
BETTER = {
    "mae_ms": -1, "r2_log": 1, "p90_pinball_ms": -1,
    "ratio_correlation": 1, "rank_correlation": 1, "cost_correlation": 1, "snips": -1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Score:
    """How a predictor did.

    Attributes:
        mean: metric → mean over the seeds.
        spread: metric → largest less smallest over the seeds; empty with one seed.
        parts: metric → one number a row, whose mean is the metric of the first seed: for intervals of differences.
    """

    mean: dict[str, float]
    spread: dict[str, float]
    parts: dict[str, Floats]


def score(split: Split, name: str) -> Score:
    """Train a predictor of `PREDICTORS` once for each of its seeds, and judge it."""
    found = [_once(split, name, seed) for seed in range(PREDICTORS[name].seeds)]
    values = {metric: [float(parts[metric].mean()) for parts in found] for metric in found[0]}
    spread = {metric: max(those) - min(those) for metric, those in values.items()} if len(found) > 1 else {}
    return Score({metric: float(np.mean(those)) for metric, those in values.items()}, spread, found[0])


def _once(split: Split, name: str, seed: int) -> dict[str, Floats]:
    trained, testing = PREDICTORS[name].train(split.training, seed, split.target), split.testing
    mean_ms, p90_ms = trained.mean_ms(testing.features), trained.p90_ms(testing.features)
    point = point_parts(testing.latency_ms, mean_ms)
    parts = {
        "mae_ms": point["mae_ms"],
        "r2_log": point["r2_log"],
        "p90_pinball_ms": pinball_parts(testing.latency_ms, p90_ms, 0.9),
        "p90_coverage": covered_parts(testing.latency_ms, p90_ms),
    }
    return parts if split.choices is None else parts | _ranked(split.choices, trained.mean_ms)


def _ranked(choices: Choices, mean_ms: Predict) -> dict[str, Floats]:
    """Add to the published figures the correlation of the predicted ratio to the geometric mean candidate.

    The measured surplus is a logarithm; so is this, and neither a long nor a short decision counts more than another.
    """
    n, m, k = choices.features.shape
    predicted_ms = mean_ms(choices.features.reshape(-1, k)).reshape(n, m)
    ratio = rank_parts(choices, np.log(predicted_ms))["cost_correlation"]
    return rank_parts(choices, predicted_ms) | {"ratio_correlation": ratio}
