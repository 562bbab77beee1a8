"""llm-d's default profile: queue, KV cache and prefix cache scored and added up, the highest sum wins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lodestar.pipeline.replay.routing.llm_d_scores import LlmDScores

__all__ = ["LlmDDefault"]


@dataclass(frozen=True, slots=True)
class LlmDDefault(LlmDScores):
    """The highest weighted sum of scores for queue, free cache and cached prefix, ties at random.

    sum = `queue_weight` · (max q - q) / (max q - min q) + `kv_weight` · (1 - u) + `prefix_weight` · matched / blocks

    for q requests waiting and a share u of the KV cache in use, as the engine last told; the first score is 1 wherever
    all q are equal, and each is kept within 0 and 1. An instance that has told nothing yet counts as empty. Blocks are
    those of the router's prefix index, `block_tokens` each; `max_prefix_tokens` of a prompt are looked up.

    The cost is minus the sum. Ties: llm-d's ``max-score-picker`` shuffles before it sorts.

    Source: llm-d/llm-d-router ``pkg/epp/config/loader/defaults.go``, ``pkg/epp/scheduling/scheduler_profile.go`` and
    ``pkg/epp/framework/plugins/scheduling/{scorer/queuedepth,scorer/kvcacheutilization,scorer/prefix,picker/maxscore}``
    as of August 2026. A change proposed in September (pull request 2848) gives an instance without metrics no score for
    queue and KV cache, instead of the best.
    """

    name: ClassVar[str] = "llm-d-default"
