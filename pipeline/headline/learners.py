"""The policies that learn while they route, each with one choice of settings for all cells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from lodestar.pipeline.headline.plan import Effort
from lodestar.pipeline.online.policies import LodestarOnline
from lodestar.pipeline.online.published import AS_INTENDED, LodestarPublished
from lodestar.pipeline.replay.policy_settings import declared, read_settings, split_settings
from lodestar.pipeline.replay.routing.learning import LearningPolicy

__all__ = ["ONLINE", "PUBLISHED", "README", "Learner", "learners"]

ONLINE: Final = LodestarOnline.name
PUBLISHED: Final = LodestarPublished.name
#: The published loop with the settings of its README instead of those of its experiments.
README: Final = f"{LodestarPublished.name} (README)"


class Learner(NamedTuple):
    """One of them.

    Attributes:
        settings: all that are not its defaults, as the command line takes them.
        seeds: runs.
    """

    name: str
    policy: LearningPolicy
    settings: str
    seeds: int


def learners(effort: Effort) -> Iterator[Learner]:
    """Yield those that have runs.

    >>> [learner.name for learner in learners(Effort(published_seeds=0, readme_seeds=0))]
    ['lodestar-online']
    """
    _, told = split_settings(f"{PUBLISHED},{AS_INTENDED}")
    intended = LodestarPublished(**read_settings(PUBLISHED, told, declared(LodestarPublished)))
    for learner in (
        Learner(ONLINE, LodestarOnline(), "", effort.seeds),
        Learner(PUBLISHED, LodestarPublished(), "", min(effort.seeds, effort.published_seeds)),
        Learner(README, intended, AS_INTENDED, min(effort.seeds, effort.readme_seeds)),
    ):
        if learner.seeds:
            yield learner
