"""Routing policies, one file each, found by name."""

from __future__ import annotations

from collections.abc import Callable

from lodestar.data.errors import ConfigError, unknown
from lodestar.models.latency import LatencyModel
from lodestar.pipeline.replay.policies.aibrix_prefix_cache import AibrixPrefixCache
from lodestar.pipeline.replay.policies.contract import Policy
from lodestar.pipeline.replay.policies.learned import Learned
from lodestar.pipeline.replay.policies.least_request import LeastRequest
from lodestar.pipeline.replay.policies.random_choice import RandomChoice

__all__ = ["make_policy", "policies"]

Model = LatencyModel | None


def policies() -> dict[str, Callable[[Model], Policy]]:
    """Return every policy's maker by name; a maker takes the dataset's latency model, if there is one.

    >>> sorted(policies())
    ['aibrix-prefix-cache', 'learned', 'least-request', 'random']
    """
    return {
        RandomChoice.name: lambda model: RandomChoice(),
        LeastRequest.name: lambda model: LeastRequest(),
        AibrixPrefixCache.name: lambda model: AibrixPrefixCache(),
        Learned.name: _learned,
    }


def _learned(model: Model) -> Policy:
    if model is None:
        raise ConfigError("policy 'learned' needs a latency model and this dataset has none. Run lodestar train first")
    return Learned.of(model)


def make_policy(name: str, model: Model = None) -> Policy:
    """Make one policy by its name, with default settings."""
    known = policies()
    if name not in known:
        raise unknown("policy", name, known)
    return known[name](model)
