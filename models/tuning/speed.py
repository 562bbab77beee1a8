"""How long a decision takes to score: an estimate that is the same for the same parameters, and the measured time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.models.fit import fit
from lodestar.models.latency import LatencyModel
from lodestar.models.parameters import Parameters
from lodestar.models.rows import Rows
from lodestar.models.scorer import Scorer, score, scorer_of

__all__ = ["CANDIDATES", "Speed", "measured_us"]

Floats = NDArray[np.float64]

CANDIDATES: Final = 8
_SMALL, _LARGE = Parameters(rounds=20, num_leaves=4), Parameters(rounds=200, num_leaves=31)
_ROWS: Final = 5000
_DECISIONS: Final = 64
_REPEATS: Final = 15


@dataclass(frozen=True, slots=True)
class Speed:
    """Time of a decision over `CANDIDATES` candidates, by the size of the model.

    A measured time differs from one moment to the next, and a search that hangs on it can't be repeated. So the machine
    is measured once, a study keeps the numbers, and each trial is held against them.

    Attributes:
        fixed_us: of any model.
        ns_per_leaf: each leaf of each tree adds this for each candidate.
    """

    fixed_us: float
    ns_per_leaf: float

    def decision_us(self, rounds: int, num_leaves: int) -> float:
        """Return the microseconds of one decision where every tree has all its leaves.

        >>> Speed(fixed_us=2.0, ns_per_leaf=1.0).decision_us(100, 15)
        14.0
        """
        return self.fixed_us + rounds * num_leaves * CANDIDATES * self.ns_per_leaf / 1000.0

    @classmethod
    def measure(cls, rows: Rows, target: str, seed: int) -> Speed:
        """Measure a small and a large model of these rows on this machine; kept to two figures."""
        few = rows.last(_ROWS)
        models = [fit(few, target, parameters, seed, heads=False)[0] for parameters in (_SMALL, _LARGE)]
        leaves = [len(scorer_of(model).leaf) for model in models]
        small_us, large_us = (measured_us(model, few.features) for model in models)
        ns_per_leaf = max(large_us - small_us, 0.0) * 1000.0 / (max(leaves[1] - leaves[0], 1) * CANDIDATES)
        fixed_us = max(small_us - leaves[0] * CANDIDATES * ns_per_leaf / 1000.0, 0.0)
        return cls(float(f"{fixed_us:.2g}"), float(f"{ns_per_leaf:.2g}"))


def measured_us(model: LatencyModel, features: Floats) -> float:
    """Return the median over decisions of the best of several times, in µs, for `CANDIDATES` rows of `features`."""
    scorer, out_ms = scorer_of(model), np.empty(CANDIDATES)
    drawn = np.random.default_rng(0).integers(0, len(features), (_DECISIONS, CANDIDATES))
    decisions = [np.ascontiguousarray(features[those]) for those in drawn]
    score(decisions[0], scorer, out_ms)  # compiles
    return float(np.median([min(_once_us(each, scorer, out_ms) for _ in range(_REPEATS)) for each in decisions]))


def _once_us(features: Floats, scorer: Scorer, out_ms: Floats) -> float:
    began = time.perf_counter_ns()
    score(features, scorer, out_ms)
    return (time.perf_counter_ns() - began) / 1000.0
