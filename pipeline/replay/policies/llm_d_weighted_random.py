"""llm-d's default scores with its weighted random picker, which spreads requests that score alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lodestar.pipeline.replay.routing.llm_d_scores import LlmDScores
from lodestar.pipeline.replay.routing.pick import Pick

__all__ = ["LlmDWeightedRandom"]


@dataclass(frozen=True, slots=True)
class LlmDWeightedRandom(LlmDScores):
    """Each instance with a probability in proportion to the sum of llm-d's scores, see `LlmDScores`.

    llm-d draws keys u^(1/score) and takes the largest (A-Res), which for one pick is p = score / Σ scores; where no
    score is positive, all have the same chance.

    Source: llm-d/llm-d-router ``pkg/epp/framework/plugins/scheduling/picker/weightedrandom/picker.go``, and those of
    `LlmDScores`: ``pkg/epp/scheduling/scheduler_profile.go``, ``pkg/epp/framework/plugins/scheduling/scorer``.
    """

    name: ClassVar[str] = "llm-d-weighted-random"

    def pick(self) -> Pick:
        """Draw by weight."""
        return Pick(weighted=True)
