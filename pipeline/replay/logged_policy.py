"""The policy that a log names, if it is one of ours, and whether the logged propensities can be its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from lodestar.data.errors import ConfigError
from lodestar.data.log import RequestLog
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.policies import POLICIES
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.policy_settings import split_settings
from lodestar.pipeline.replay.routing.contract import NOTHING, Fleet, Policy
from lodestar.pipeline.replay.routing.wrapped import WRAPPERS

__all__ = ["could_have_given", "name_among", "named_policy"]

_ROUNDED: Final = 1e-3  # logs may round their propensities
_MOST: Final = 0.95  # of the decisions: while an instance joins or leaves, a router may know of others than the log


def named_policy(text: str, instances: int = 0) -> Policy | None:
    """Return the policy of ours that a text names, with its settings and wrapper; None for whatever else it says.

    The text is a log's, and whoever wrote it is not trusted: no file is opened, nothing is imported, no model is asked.
    A policy that stands in a file, belongs to another package, learns, or predicts is therefore not known.

    Args:
        text: what the log says.
        instances: so many it must be able to route to; 0: it may be set for any number.

    >>> named_policy("epsilon:least-request,epsilon=0.2")
    Wrapped(inner=LeastRequest(), kind='epsilon', amount=0.2)
    >>> [named_policy(text) for text in ("prefix", "mine.py:Mine", "learned", "epsilon:least-request,epsilon=2")]
    [None, None, None, None]
    """
    try:
        name, _ = split_settings(text)
        kind, _, rest = name.partition(":")
        ours = {policy.name for policy in POLICIES if policy.predictor == NOTHING}
        if (rest if kind in WRAPPERS else name) not in ours:
            return None
        policy = make_policy(text)
        if instances:
            policy.parameters(Fleet.of([EngineModel()] * instances))  # refuses settings of more or fewer
        return policy
    except ConfigError:
        return None


def name_among(policy: Policy | None, names: Iterable[str]) -> str | None:
    """Return the name by which a policy was asked for, settings and all; None where it was not, or is not known.

    >>> name_among(named_policy("epsilon:random,epsilon=0.1"), ["random", "epsilon:random"])
    'epsilon:random'
    """
    return None if policy is None else next((name for name in names if named_policy(name) == policy), None)


def could_have_given(policy: Policy, log: RequestLog) -> bool:
    """Say whether the logged propensities are ones that a policy can give at all; True where none are logged.

    Of m candidates, ``epsilon`` gives each ε / m at least. A policy that takes the lowest cost adds 1 − ε to one, or
    shares it among k that tie. Which of these a candidate had is not asked: it takes the state at every decision.
    """
    known = (log.chosen >= 0) & (log.propensity > 0)
    if not known.any():
        return True
    pick, candidates = policy.pick(), np.maximum(log.candidate[known].sum(axis=1), 1)
    beyond = log.propensity[known] - pick.epsilon / candidates
    possible = beyond >= -_ROUNDED
    if not (pick.weighted or pick.temperature > 0):
        share = 1.0 - pick.epsilon
        tied = np.clip(np.round(share / np.maximum(beyond, _ROUNDED)), 1, candidates if pick.ties == "random" else 1)
        possible &= (np.abs(beyond) <= _ROUNDED) | (np.abs(beyond - share / tied) <= _ROUNDED)
    return float(possible.mean()) >= _MOST
