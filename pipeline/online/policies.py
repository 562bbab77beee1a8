"""The policies that learn while they route, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from lodestar.data import schema
from lodestar.pipeline.online.published import LodestarPublished
from lodestar.pipeline.online.replayed import OnlineRun
from lodestar.pipeline.online.settings import OnlineSettings
from lodestar.pipeline.replay.routing.learning import LearningPolicy

__all__ = ["LEARNING", "LodestarOnline"]


@dataclass(frozen=True, slots=True)
class LodestarOnline(OnlineSettings, LearningPolicy):
    """The lowest total cost by models that are trained on the router's own traffic, from a cold start.

    The cost of a candidate is the TTFT that is predicted there, and the delay that the choice imposes on those who come
    behind it: the longer the request, and the more work stands there, the more. Each kind of hardware has a model
    of its own. The router counts a request the moment it has decided, without what is cached of it, so that a burst
    does not herd. Nothing is learned before it is known, and a model serves only after the time that its training
    takes.

    Source: the loop of Lodestar, arXiv 2606.00946, with gradient-boosted trees around a physical baseline; the imposed
    delay after Hyytiä, Penttinen and Aalto 2012, "Size- and state-aware dispatching problem with queue-specific job
    sizes".
    """

    name: ClassVar[str] = "lodestar-online"
    fields: ClassVar[tuple[str, ...]] = (schema.INFLIGHT_REQUESTS,)

    def fresh(self) -> OnlineRun:
        """Return a run that has learned nothing yet."""
        return OnlineRun(self)


#: A test keeps this list complete.
LEARNING: Final[tuple[type[LearningPolicy], ...]] = (LodestarOnline, LodestarPublished)
