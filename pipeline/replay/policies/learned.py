"""The learned router: send each request where the latency model expects it to be answered first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.features.definitions import FEATURES, candidate_features
from lodestar.models.latency import LatencyModel
from lodestar.models.scorer import Scorer, score, scorer_of
from lodestar.pipeline.replay.policies.contract import (
    Parameters,
    Rule,
    allocating_policy_function,
    is_candidate,
    spread,
)

__all__ = ["Learned"]

Floats = NDArray[np.float64]

_WIDTH: Final = len(FEATURES)


@allocating_policy_function
def _rule(prompt_tokens: float, snapshot: Floats, parameters: Parameters, probability: Floats) -> None:
    features = np.empty((len(probability), _WIDTH))
    predicted_ms = np.empty(len(probability))
    candidate_features(prompt_tokens, snapshot, features)
    score(features, parameters.scorer, predicted_ms)
    best_ms = np.inf
    for j in range(len(probability)):
        if is_candidate(snapshot, j):
            best_ms = min(best_ms, predicted_ms[j])
    for j in range(len(probability)):
        probability[j] = 1.0 if is_candidate(snapshot, j) and predicted_ms[j] == best_ms else 0.0
    spread(probability)


@dataclass(frozen=True, slots=True)
class Learned:
    """Argmin of predicted latency over the candidates, ties at random.

    Features and scores come from the functions that train and check the model, so that nothing is skewed between
    training, replay and serving. Greedy: it does not count what a choice costs the requests that come after.

    Source: Lodestar, arXiv 2606.00946, with gradient-boosted trees for its network.
    """

    scorer: Scorer

    name: ClassVar[str] = "learned"
    fields: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def of(cls, model: LatencyModel) -> Learned:
        """Flatten a model once for all decisions."""
        return cls(scorer_of(model))

    @property
    def rule(self) -> Rule:
        """Return the compiled rule."""
        return _rule

    def parameters(self) -> Parameters:
        """Return the model for the rule."""
        return Parameters.of(scorer=self.scorer)
