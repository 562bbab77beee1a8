"""llm-d's default scores with its weighted random picker, which spreads requests that score alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lodestar.pipeline.replay.routing.llm_d_scores import LlmDScores
from lodestar.pipeline.replay.routing.pick import Pick

__all__ = ["LlmDWeightedRandom"]


@dataclass(frozen=True, slots=True)
class LlmDWeightedRandom(LlmDScores):
    """Each instance with a probability in proportion to its weighted sum of scores, as ``llm-d-default`` adds them up.

    sum = `queue_weight` · (max q - q) / (max q - min q) + `kv_weight` · (1 - u) + `prefix_weight` · matched / blocks

    for q requests waiting and a share u of the KV cache in use, as the engine last told; the first score is 1 wherever
    all q are equal, and each is kept within 0 and 1. An instance that has told nothing yet counts as empty. Blocks are
    those of the router's prefix index, `block_tokens` each; `max_prefix_tokens` of a prompt are looked up.

    llm-d draws keys u^(1/score) and takes the largest (A-Res), which for one pick is p = score / Σ scores; where no
    score is positive, all have the same chance.

    Source: llm-d/llm-d-router ``pkg/epp/framework/plugins/scheduling/picker/weightedrandom/picker.go``, with the
    scores of ``pkg/epp/scheduling/scheduler_profile.go``, ``pkg/epp/framework/plugins/scheduling/scorer``.
    """

    name: ClassVar[str] = "llm-d-weighted-random"

    def pick(self) -> Pick:
        """Draw by weight."""
        return Pick(weighted=True)
