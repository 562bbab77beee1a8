"""The policy `lodestar-published`: the paper's own online loop, for others to be compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from lodestar.data import schema
from lodestar.pipeline.online.published_run import PublishedRun
from lodestar.pipeline.online.published_settings import PublishedSettings
from lodestar.pipeline.replay.routing.learning import LearningPolicy

__all__ = ["AS_INTENDED", "LodestarPublished"]

#: Settings, as a user writes them, that undo what the release does against its own README.
AS_INTENDED: Final = (
    "min_training_requests=1000,filtered_instances=2,dropout_at_inference=false,no_in_flight_at_inference=false,"
    "late_snapshots=false,longest_ms=0,out_of_range=all"
)


@dataclass(frozen=True, slots=True)
class LodestarPublished(PublishedSettings, LearningPolicy):
    """The best predicted reward, -TTFT, by a small network that is trained on the router's own traffic.

    AIBrix's ``prefix-cache`` decides until the first training has ended. Each training is from scratch, on the new
    samples, the newest 5,000 before them, and 5,000 older ones kept for their variety. The quirks of the released code
    are settings, as they are in the experiments; ``lodestar-published,SETTINGS`` with the settings below is what its
    README says:

        min_training_requests=1000,filtered_instances=2,dropout_at_inference=false,no_in_flight_at_inference=false,
        late_snapshots=false,longest_ms=0,out_of_range=all

    Source: Lodestar, arXiv 2606.00946, and gangmuk/Lodestar: ``routing_agent_service.py``, ``reward_predictor.py``,
    ``replay_buffer.py`` and ``rl_routing.go``. Left out: UCB and Thompson sampling (off in the experiments), and the
    weights that the loss can give to samples (all 1).
    """

    name: ClassVar[str] = "lodestar-published"
    fields: ClassVar[tuple[str, ...]] = (schema.INFLIGHT_REQUESTS, schema.HIT_RATIO)

    def fresh(self) -> PublishedRun:
        """Return a run that has learned nothing yet."""
        return PublishedRun(self)
