"""Every policy on every draw of one cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.pipeline.headline.learners import Learner, learners
from lodestar.pipeline.headline.plan import Effort, Spec
from lodestar.pipeline.headline.rivals import replayed, rivals
from lodestar.pipeline.headline.worlds import World
from lodestar.pipeline.replay.cluster import Outcome
from lodestar.pipeline.replay.lower_bound import lower_bound_ms
from lodestar.pipeline.replay.tuning.text import policy_text

__all__ = ["Runs", "all_runs", "bound_ms"]

Floats = NDArray[np.float64]

_ROUNDING_MS: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Runs:
    """One policy with one choice of its settings, on the first draws of a cell.

    Attributes:
        policy: its name.
        variant: 'default' or 'tuned'.
        mark: '', 'session', 'engines', 'oracle' or 'learns'.
        settings: all that are not its defaults, as the command line takes them.
        ttft_ms: shape (draws, requests).
        hit_ratio: share of the prompt tokens that an engine's cache held.
        first_model_s: when the first model decided, of each draw; empty where there is none to learn.
    """

    policy: str
    variant: str
    mark: str
    settings: str
    ttft_ms: Floats
    hit_ratio: float
    first_model_s: tuple[float, ...] = ()

    @property
    def is_heuristic(self) -> bool:
        """Say whether it plays by the rules of a router, and does not learn."""
        return self.mark in ("", "session")


def all_runs(spec: Spec, effort: Effort, worlds: Sequence[World]) -> list[Runs]:
    """Replay them all; equal settings are replayed once."""
    found: list[Runs] = []
    for rival in rivals(spec, effort):
        settings = policy_text("", rival.policy).lstrip(",")
        same = [each for each in found if (each.policy, each.settings) == (rival.policy.name, settings)]
        if same:
            found.append(replace(same[0], variant=rival.variant))
        else:
            outcomes = replayed(worlds, rival.policy)
            found.append(_runs(rival.policy.name, rival.variant, rival.mark, settings, worlds, outcomes))
    return [*found, *(_learned(learner, worlds[: learner.seeds]) for learner in learners(effort))]


def bound_ms(worlds: Sequence[World], runs: Sequence[Runs]) -> Floats:
    """Return what no router can beat, shape (draws, requests).

    Raises:
        DataError: a policy did, so that something is wrong.
    """
    bound = np.concatenate([lower_bound_ms(each.cluster, [seed]) for seed, each in enumerate(worlds)])
    for each in runs:
        if (each.ttft_ms < bound[: len(each.ttft_ms)] - _ROUNDING_MS).any():
            raise DataError(f"{each.policy} answers a request sooner than an idle engine would; expected no such one")
    return bound


def _learned(learner: Learner, worlds: Sequence[World]) -> Runs:
    """Run a policy that learns: each draw begins knowing nothing."""
    outcomes, first_model_s = [], []
    for seed, each in enumerate(worlds):
        run: Any = learner.policy.fresh()
        outcomes.append(each.cluster.replay(run, seed=seed))
        first_model_s.append(min((training.served_from_s for training in run.trainings), default=float("inf")))
    made = _runs(learner.name, "default", "learns", learner.settings, worlds, outcomes)
    return replace(made, first_model_s=tuple(first_model_s))


def _runs(
    policy: str, variant: str, mark: str, settings: str, worlds: Sequence[World], outcomes: Sequence[Outcome]
) -> Runs:
    ttft_ms = np.stack([outcome.ttft_ms for outcome in outcomes])
    if np.isnan(ttft_ms).any():
        raise DataError(f"{policy} lost {int(np.isnan(ttft_ms).sum())} requests; expected every one to be answered")
    cached = sum(int(outcome.cached_tokens.sum()) for outcome in outcomes)
    prompts = sum(int(each.cluster.workload.prompt_tokens.sum()) for each in worlds)
    return Runs(policy, variant, mark, settings, ttft_ms, cached / prompts)
