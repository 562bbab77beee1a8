"""Routing policies, one file each, found by name."""

from __future__ import annotations

from typing import Final

from lodestar.data.errors import ConfigError, unknown
from lodestar.models.latency import LatencyModel
from lodestar.pipeline.replay.policies.aibrix_prefix_cache import AibrixPrefixCache
from lodestar.pipeline.replay.policies.contract import Policy
from lodestar.pipeline.replay.policies.learned import Learned
from lodestar.pipeline.replay.policies.least_request import LeastRequest
from lodestar.pipeline.replay.policies.random_choice import RandomChoice

__all__ = ["HEURISTICS", "POLICIES", "make_policy"]

#: Policies that need no model.
HEURISTICS: Final = (RandomChoice, LeastRequest, AibrixPrefixCache)
POLICIES: Final = (*HEURISTICS, Learned)


def make_policy(name: str, model: LatencyModel | None = None) -> Policy:
    """Make a policy by its name, with default settings.

    >>> make_policy("least-request").name
    'least-request'
    """
    for heuristic in HEURISTICS:
        if heuristic.name == name:
            return heuristic()
    if name != Learned.name:
        raise unknown("policy", name, [known.name for known in POLICIES])
    if model is None:
        raise ConfigError("policy 'learned' needs a latency model and this dataset has none. Run lodestar train first")
    return Learned.of(model)
