"""llm-d's default profile: queue, KV cache and prefix cache scored and added up, the highest sum wins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lodestar.pipeline.replay.routing.llm_d_scores import LlmDScores

__all__ = ["LlmDDefault"]


@dataclass(frozen=True, slots=True)
class LlmDDefault(LlmDScores):
    """The highest sum of llm-d's scores, see `LlmDScores`; ties at random, as its ``max-score-picker`` shuffles.

    Source: llm-d/llm-d-router ``pkg/epp/config/loader/defaults.go``, ``pkg/epp/scheduling/scheduler_profile.go`` and
    ``pkg/epp/framework/plugins/scheduling/{scorer/queuedepth,scorer/kvcacheutilization,scorer/prefix,picker/maxscore}``
    as of August 2026. A change proposed in September (pull request 2848) gives an instance without metrics no score for
    queue and KV cache, instead of the best.
    """

    name: ClassVar[str] = "llm-d-default"
