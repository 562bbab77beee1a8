"""The policies that do not learn: at their defaults, and tuned with hindsight on the very cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from lodestar.pipeline.headline.plan import Effort, Spec
from lodestar.pipeline.headline.worlds import World, world
from lodestar.pipeline.replay.cluster import Cluster, Outcome
from lodestar.pipeline.replay.policies import POLICIES
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.routing.contract import ENGINE, MODEL, Policy
from lodestar.pipeline.replay.tuning.study import Search, search
from lodestar.pipeline.replay.tuning.text import spaces_of

__all__ = ["BASELINE", "Draws", "Rival", "mark_of", "replayed", "rivals"]

BASELINE: Final = "aibrix-prefix-cache"
#: Policies that take some fifty times as long as the others, and how many settings of theirs are tried.
_FEWER_TRIALS: Final = {"preble": 3}


@dataclass(frozen=True, slots=True)
class Rival:
    """A policy as it is compared.

    Attributes:
        variant: 'default' or 'tuned'.
        mark: see `mark_of`.
    """

    policy: Policy
    variant: str
    mark: str


@dataclass(frozen=True, slots=True)
class Draws:
    """Draws of one cell, replayed by their seed: each seed has a workload of its own."""

    clusters: dict[int, Cluster]

    def replay(self, policy: Policy, *, seed: int) -> Outcome:
        """Replay the draw of this seed."""
        return self.clusters[seed].replay(policy, seed=seed)


def rivals(spec: Spec, effort: Effort) -> Iterator[Rival]:
    """Yield every policy without models of its own, and its tuned variant where it has settings and tuning is wanted.

    What is tuned is the mean TTFT of a whole run, over draws of the same cell that are not compared afterwards.
    """
    seeds = range(effort.seeds, effort.seeds + effort.search_seeds)
    draws = Draws({seed: world(spec, effort, seed).cluster for seed in seeds})
    for kind in POLICIES:
        if kind.predictor == MODEL:
            continue
        policy = make_policy(kind.name)
        yield Rival(policy, "default", mark_of(policy))
        trials = min(effort.trials, _FEWER_TRIALS.get(policy.name, effort.trials))
        if trials > 1 and spaces_of(policy):
            found = search(Search(draws, policy, seeds, 0, "mean", trials, 0, lambda: None))
            yield Rival(found.policy, "tuned", mark_of(policy))


def mark_of(policy: Policy) -> str:
    """Say what sets a policy apart: what it asks or knows that a router can't, or needs what is not there.

    >>> mark_of(make_policy("oracle-ttft")), mark_of(make_policy("greedy-engine-ttft")), mark_of(make_policy("lmetric"))
    ('oracle', 'engines', '')
    """
    if policy.predictor in (ENGINE, MODEL):
        return "oracle" if policy.predictor == ENGINE else "learned"
    if policy.needs_engines:
        return "engines"
    return "session" if "session" in policy.name else ""


def replayed(worlds: Sequence[World], policy: Policy) -> list[Outcome]:
    """Replay every draw; the seed of a draw is its place."""
    return [each.cluster.replay(policy, seed=seed) for seed, each in enumerate(worlds)]
