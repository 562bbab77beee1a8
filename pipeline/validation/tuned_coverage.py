"""Coverage of intervals whose hyper-parameter SLOPE chose, with models that are right, wrong in level, and none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.estimation.estimate import estimate
from lodestar.pipeline.estimation.estimators import estimators
from lodestar.pipeline.estimation.intervals.interval import OVER_TRAFFIC, Interval
from lodestar.pipeline.estimation.one_step import OneStepInput, Valued, weights
from lodestar.pipeline.validation.coverage import Coverage, Weighed, covered
from lodestar.pipeline.validation.ranked_logs import RankedLog, ranked_log, true_cost
from lodestar.pipeline.validation.scored import Progress

__all__ = ["ALONE", "MODELS", "tuned_coverage"]

Floats = NDArray[np.float64]

#: What a model says of every candidate of a log, as a share of what is expected; None: the mean logged cost of all.
MODELS: Final[Mapping[str, float | None]] = {
    "model right": 1.0,
    "model 10 % high": 1.1,
    "model 40 % high": 1.4,
    "no model": None,
}
#: Ends the name of a setting whose intervals are those of the chosen hyper-parameter alone, which nobody is shown.
ALONE: Final = ": λ alone"

_TUNED: Final = ("sg-dr", "dr-os", "switch-dr")
_WITHOUT_A_MODEL: Final = ("sg-ipw", *_TUNED)
_SPREAD: Final = 1.0  # of the logging policy's scores: weights up to 35
_LEVEL: Final = 0.95


def tuned_coverage(repetitions: int = 300, seed: int = 0, progress: Progress | None = None) -> list[Coverage]:
    """Measure the coverage of the intervals of every estimator that SLOPE tunes, as `estimate` makes them.

    The policy takes the cheapest of 7 candidates, and propensities are exact. Beside each interval stands what it would
    be with the chosen hyper-parameter alone.

    Args:
        repetitions: logs.
        seed: of the logs.
        progress: told what is done, how much of it, and of how much.
    """
    found: dict[tuple[str, str], list[Interval]] = defaultdict(list)
    weighed: list[Weighed] = []
    for done in range(repetitions):
        made = ranked_log(10_000_000 * seed + done, _SPREAD)
        weighed.append(Weighed.of(weights(made.rows(1))))
        for model, share in MODELS.items():
            rows = made.rows(1, _predicted(made, share))
            for name in _WITHOUT_A_MODEL if share is None else _TUNED:
                valued = estimators()[name](rows)
                found[model, name].append(_interval(rows, name, valued))
                found[model + ALONE, name].append(_interval(rows, name, replace(valued, whole=None)))
        if progress:
            progress("tuned coverage", done + 1, repetitions)
    return [covered(model, name, each, true_cost(1), weighed) for (model, name), each in found.items()]


def _predicted(made: RankedLog, share: float | None) -> Floats:
    if share is None:
        return np.full(made.log.candidates, made.log.cost.mean())
    return share * made.expected


def _interval(rows: OneStepInput, name: str, valued: Valued) -> Interval:
    shown = estimate(rows, "cheapest", name, by=lambda _: valued)
    return Interval(shown.value_ms, *shown.ci95_ms, _LEVEL, OVER_TRAFFIC, shown.interval, shown.se_ms)
