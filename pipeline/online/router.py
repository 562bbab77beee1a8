"""One online router's decisions: a heuristic until there is a model, then the lowest total cost.

The cost is in `total_cost`; until there is a model, the cold start decides by the same snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.models.online.brain import Brain, Predicted
from lodestar.pipeline.online.ahead import Ahead
from lodestar.pipeline.online.saturation import kept_by_group
from lodestar.pipeline.online.settings import HEURISTIC, OnlineSettings
from lodestar.pipeline.online.total_cost import Traffic, total_cost_ms
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.routing.contract import NOTHING, Fleet, Policy
from lodestar.pipeline.replay.routing.pick import draw
from lodestar.pipeline.replay.routing.policy_state import PolicyState

__all__ = ["COLD_START", "FALLBACK", "MODEL", "Decision", "OnlineRouter", "cold_start_policy"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

#: What decided: the model, the heuristic for want of one, or the heuristic because no candidate is one it knows.
MODEL, COLD_START, FALLBACK = "model", "cold start", "fallback"

#: The cold start by default: as the policy of that name, with the uncached tokens that the router counts itself.
UNCACHED: Final = "least-uncached-tokens"

_HIT: Final = schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)
_TOKENS: Final = schema.SNAPSHOT_FIELDS.index(schema.PREFILL_TOKENS)


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision, with all that a log of it needs.

    Attributes:
        instance: the chosen one.
        probability: of every instance, shape (m,); 0 for what is no candidate.
        cost: of every instance, inf for what is no candidate, shape (m,).
        predicted_ms: TTFT and TPOT, NaN where there is no model, shape (m, 2).
        source: what decided: `MODEL`, `COLD_START` or `FALLBACK`.
        outside: which candidates are beyond the training ranges, shape (m,).
        explored: whether the draw took another instance than the best.
        snapshot: that it was decided by, with the router's own counts, shape (m, len(SNAPSHOT_FIELDS)).
    """

    instance: int
    probability: Floats
    cost: Floats
    predicted_ms: Floats
    source: str
    outside: Bools
    explored: bool
    snapshot: Floats


class _Asked(NamedTuple):
    """A request at its decision.

    Attributes:
        now_s: the time.
        prompt_tokens: of the request.
        told: what is known of every instance.
        seen: the same with the router's own counts.
        candidates: the instances to choose from.
        uniform: of the draw.
    """

    now_s: float
    prompt_tokens: float
    told: Floats
    seen: Floats
    candidates: Ints
    uniform: float


class OnlineRouter:
    """Decides; what it decides by can be replaced at any moment by setting `brain`.

    Attributes:
        settings: of the policy.
        names: instances, by which they are known.
        kinds: hardware of each, '' where it is not known.
        brain: None until there is a model.
    """

    def __init__(
        self, settings: OnlineSettings, names: Sequence[str] = (), kinds: Sequence[str] = (), brain: Brain | None = None
    ) -> None:
        """Begin with the instances that are there."""
        self.settings, self.brain = settings, brain
        self.names, self.kinds = list(names), list(kinds) or [""] * len(names)
        self._heuristic = cold_start_policy(settings.cold_start)
        self._ahead, self._traffic = Ahead(), Traffic()
        self._place = {name: index for index, name in enumerate(self.names)}
        self._state: PolicyState | None = None

    def place(self, name: str, kind: str = "") -> int:
        """Return the index of an instance, which joins if it is not known."""
        index = self._place.setdefault(name, len(self.names))
        if index == len(self.names):
            self.names.append(name)
            self.kinds.append(kind)
            self._state = None  # of a smaller fleet
        self.kinds[index] = kind or self.kinds[index]
        return index

    def decide(
        self,
        now_s: float,
        prompt_tokens: float,
        snapshot: Floats,
        candidates: Sequence[int] | Ints,
        group: int = -1,
        uniform: float = 0.5,
    ) -> Decision:
        """Decide on a request; nothing is remembered of it until `sent`.

        Args:
            now_s: the time.
            prompt_tokens: of the request.
            snapshot: what is known of every instance, shape (m, len(SNAPSHOT_FIELDS)), NaN where it is not.
            candidates: the instances to choose from.
            group: names the prefix that the request shares with others; -1: none.
            uniform: of the draw, in [0, 1).

        Raises:
            ConfigError: there is no candidate.
        """
        candidates = np.asarray(candidates, dtype=np.int64)
        if not len(candidates):
            raise ConfigError("no candidate; expected at least one instance to choose from")
        brain, its = self.brain, self.settings
        seen = snapshot
        if its.count_uncached:
            token_ms = brain.token_ms(self.kinds) if brain is not None and its.progress else None
            seen = self._ahead.counted(now_s, snapshot, token_ms)
        asked = _Asked(now_s, prompt_tokens, snapshot, seen, candidates, uniform)
        if brain is None:
            return self._by_heuristic(asked, COLD_START, None)
        predicted = brain.predict(prompt_tokens, seen, self.kinds)
        total = total_cost_ms(its, predicted, seen, self.kinds, self._traffic, brain.log_sigma)
        known = candidates[np.isfinite(total[candidates])]
        all_outside = bool(predicted.outside[candidates].all())
        if not len(known) or (all_outside and its.outside == HEURISTIC):
            return self._by_heuristic(asked, FALLBACK, predicted)
        kept = kept_by_group(prompt_tokens, seen, known, group, its.filtered_instances, its.saturation_ratio)
        cost = np.full(len(snapshot), np.inf)
        cost[kept] = total[kept]
        return self._picked(asked, cost, MODEL, predicted)

    def sent(self, now_s: float, instance: int, prompt_tokens: float, hit_ratio: float) -> None:
        """Take down where a request went; a hit ratio of NaN counts as 0."""
        uncached_tokens = prompt_tokens * (1.0 - (0.0 if np.isnan(hit_ratio) else hit_ratio))
        self._traffic.came(uncached_tokens)
        self._traffic.wrote(instance, uncached_tokens)
        self._ahead.sent(now_s, instance, uncached_tokens)

    def passed(self, prompt_tokens: float, hit_ratio: float) -> None:
        """Take down a request that another decides on, who tells later where it went: see `went`."""
        self._traffic.came(prompt_tokens * (1.0 - (0.0 if np.isnan(hit_ratio) else hit_ratio)))

    def went(self, instance: int, prompt_tokens: float, hit_ratio: float) -> None:
        """Take down where such a request went."""
        self._traffic.wrote(instance, prompt_tokens * (1.0 - (0.0 if np.isnan(hit_ratio) else hit_ratio)))

    def _by_heuristic(self, asked: _Asked, source: str, predicted: Predicted | None) -> Decision:
        if self.settings.cold_start == UNCACHED:
            uncached = asked.prompt_tokens * (1.0 - np.nan_to_num(asked.seen[:, _HIT]))
            cost = np.full(len(asked.seen), np.inf)
            cost[asked.candidates] = (np.nan_to_num(asked.seen[:, _TOKENS]) + uncached)[asked.candidates]
        else:
            state = self._state = self._state or PolicyState(self._heuristic, Fleet(self.names))
            state.candidates = asked.candidates.tolist()
            cost, _ = state.decide(state.request(asked.now_s, int(asked.prompt_tokens)), asked.told)
        return self._picked(asked, cost, source, predicted)

    def _picked(self, asked: _Asked, cost: Floats, source: str, predicted: Predicted | None) -> Decision:
        m, epsilon, candidates = len(cost), self.settings.exploration, asked.candidates
        best = candidates[cost[candidates] == cost[candidates].min()]
        probability = np.zeros(m)
        probability[best] = (1.0 - epsilon) / len(best)
        probability[candidates] += epsilon / len(candidates)
        chosen = draw(probability, asked.uniform)
        unknown_ms = np.full((m, 2), np.nan)
        return Decision(
            instance=chosen,
            probability=probability,
            cost=cost,
            predicted_ms=unknown_ms if predicted is None else np.stack([predicted.ttft_ms, predicted.tpot_ms], axis=1),
            source=source,
            outside=np.zeros(m, dtype=np.bool_) if predicted is None else predicted.outside,
            explored=bool(cost[chosen] > cost[best[0]]),
            snapshot=asked.seen,
        )


def cold_start_policy(name: str) -> Policy:
    """Return the policy that decides until there is a model.

    Raises:
        ConfigError: it needs a model itself, or remembers requests: a router that asks from outside could not tell it
            of their first tokens.
    """
    if name == UNCACHED:
        return make_policy("random")
    policy = make_policy(name)
    pick = policy.pick()
    if pick.weighted or pick.temperature or pick.epsilon:
        raise ConfigError(
            f"cold_start {name!r} draws among candidates; expected a policy that takes the lowest cost, such as "
            "aibrix-prefix-cache or least-request. Name one of them"
        )
    if policy.predictor != NOTHING or policy.needs_engines or any(policy.memory):
        raise ConfigError(
            f"cold_start {name!r} needs more than a snapshot; expected a policy without model and memory, such as "
            "aibrix-prefix-cache or least-request. Name one of them"
        )
    return policy
