"""One run of the published loop: a heuristic, then a network that is trained again and again on what has come back.

The order of things is the release's: outcomes are handed over every 10 s, the trainer looks every 30 s, and a network
decides once its training would have ended.
"""

from __future__ import annotations

from functools import reduce
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.log import Workload
from lodestar.features.definitions import FEATURE_NAMES, FEATURES, candidate_features
from lodestar.pipeline.online.published_learner import PublishedLearner, Ranges, Trained
from lodestar.pipeline.online.published_settings import PublishedSettings
from lodestar.pipeline.online.replayed import Training, kinds_of
from lodestar.pipeline.online.router import COLD_START, FALLBACK, MODEL
from lodestar.pipeline.online.saturation import kept_by_group, prefix_groups
from lodestar.pipeline.replay.policies.aibrix_prefix_cache import AibrixPrefixCache
from lodestar.pipeline.replay.prefixes import PrefixTree
from lodestar.pipeline.replay.routing.contract import Fleet
from lodestar.pipeline.replay.routing.learning import uniform_of_try
from lodestar.pipeline.replay.routing.pick import draw
from lodestar.pipeline.replay.routing.policy_state import PolicyState
from lodestar.pipeline.replay.state import OK

__all__ = ["PublishedRun"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_INFLIGHT: Final = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)
_PREFILL_REQUESTS: Final = FEATURE_NAMES.index(schema.INFLIGHT_PREFILL_REQUESTS)
_PREFILL_TOKENS: Final = FEATURE_NAMES.index(schema.PREFILL_TOKENS)


class PublishedRun:
    """The policy `lodestar-published` at work, as the cluster asks it.

    Attributes:
        settings: of the policy.
        learner: that keeps samples and trains.
        trained: what decides; None: the heuristic.
        trainings: so far.
        probability: of every instance at the last decision, shape (m,); NaN where dropout made it random, since nobody
            knows with what probability.
        cost: of every instance then: minus the reward, in s, or the heuristic's; inf for what was no candidate.
        source: what decided then: `MODEL`, `COLD_START` or `FALLBACK`.
        rows: what each request will be to the training: features and kind of the chosen candidate, NaN before its
            decision, shape (n, len(FEATURES) + kinds).
        flushed_s: when the outcome of each request was handed over, NaN: never, shape (n,).
    """

    def __init__(self, settings: PublishedSettings, trained: Trained | None = None) -> None:
        """Prepare it, with a network that was trained before, if there is one; `begin` begins."""
        self.settings = settings
        self._before = trained
        self.trainings: list[Training] = []
        self.probability, self.cost = np.zeros(0), np.zeros(0)

    def begin(
        self,
        workload: Workload,
        tree: PrefixTree,
        fleet: Fleet,
        snapshot: Floats,
        clock_s: Floats,
        requests: NDArray[np.void],
        seed: int,
    ) -> None:
        """Begin; see `LearningRun`."""
        n, m = len(workload), len(snapshot)
        self._snapshot, self._clock_s, self._requests = snapshot, clock_s, requests
        self._prompt_tokens = workload.prompt_tokens.astype(np.float64).tolist()
        self._kinds = _one_hot(kinds_of(fleet.engines, m)) if self.settings.include_gpu else np.empty((m, 0))
        self._features = np.empty((m, len(FEATURES)))
        self._state = PolicyState(AibrixPrefixCache(), fleet)
        self._groups = prefix_groups(tree, self.settings.group_depth_tokens)
        self._uniform, self._losses = (
            np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(key,))) for key in (1, 2)
        )
        self._draws = self._uniform.random(n).tolist()
        self.rows = np.full((n, len(FEATURES) + self._kinds.shape[1]), np.nan)
        self._decided_s, self.flushed_s = np.full(n, np.nan), np.full(n, np.nan)
        self.learner = PublishedLearner(self.settings, self._kinds.shape[1], seed)
        self.trained, self.trainings, self.source = self._before, [], COLD_START
        self._ranges: dict[int, Ranges] = {}
        self._pending: tuple[float, Trained] | None = None
        self._flushes = self._polls = 1

    def decide(self, i: int) -> int:
        """Return the instance for request i."""
        now_s = float(self._clock_s[0])
        self._until(now_s)
        candidates = np.flatnonzero(~np.isnan(self._snapshot[:, _INFLIGHT]))
        candidate_features(self._prompt_tokens[i], self._snapshot, self._features)
        rows = np.hstack([self._features, self._kinds]) if self._kinds.size else self._features
        if self.trained is None or self._is_out_of_range(self.trained, rows[candidates]):
            chosen = self._by_heuristic(i, now_s, candidates)
        else:
            chosen = self._by_network(self.trained, i, rows, candidates)
        self._keep(i, now_s, rows[chosen])
        if self.settings.out_of_range != "off":
            self._ranges[i] = Ranges.of(rows[candidates])
        return chosen

    def _by_heuristic(self, i: int, now_s: float, candidates: Ints) -> int:
        self.source = COLD_START if self.trained is None else FALLBACK
        self._state.candidates = candidates.tolist()
        request = self._state.request(now_s, int(self._prompt_tokens[i]))
        self.cost, self.probability = self._state.decide(request, self._snapshot)
        return draw(self.probability, self._drawn(i))

    def _by_network(self, trained: Trained, i: int, rows: Floats, candidates: Ints) -> int:
        its, m = self.settings, len(rows)
        self.source = MODEL
        kept = kept_by_group(
            self._prompt_tokens[i],
            self._snapshot,
            candidates,
            int(self._groups[i]),
            its.filtered_instances,
            its.saturation_ratio,
        )
        reward = np.full(m, -np.inf)
        reward[kept] = trained.network.rewards(rows[kept])
        # As released: below 0, which rewards are, the threshold lies above the best.
        tied = np.flatnonzero(reward >= min(reward.max(), reward.max() * (1.0 - its.tie_ratio)))
        probability = np.zeros(m)
        probability[tied] = (1.0 - its.exploration) / len(tied)
        probability[candidates] += its.exploration / len(candidates)
        chosen = draw(probability, self._drawn(i))
        self.cost = -reward
        self.probability = np.full(m, np.nan) if its.dropout_at_inference else probability
        return chosen

    def _drawn(self, i: int) -> float:
        return uniform_of_try(self._draws[i], int(self._requests["retries"][i]))

    def _is_out_of_range(self, trained: Trained, rows: Floats) -> bool:
        test = self.settings.out_of_range
        return test != "off" and bool(trained.outside(rows[:1] if test == "first" else rows).any())

    def _keep(self, i: int, now_s: float, row: Floats) -> None:
        """Keep what the training row of this request will be."""
        self.rows[i], self._decided_s[i] = row, now_s
        if self.settings.late_snapshots:
            self.rows[i, _PREFILL_REQUESTS] += 1.0
            self.rows[i, _PREFILL_TOKENS] += self._prompt_tokens[i]

    def _until(self, now_s: float) -> None:
        """Do what was due by now, in its order: hand over outcomes, look for a training, let a network decide."""
        while True:
            flush_s, poll_s = self._flushes * self.settings.flush_s, self._polls * self.settings.poll_s
            if min(flush_s, poll_s) > now_s:
                break
            if flush_s <= poll_s:
                self._flush(flush_s)
                self._flushes += 1
            else:
                self._poll(poll_s)
                self._polls += 1
        self._serve(now_s)

    def _flush(self, at_s: float) -> None:
        """Hand over the requests that were answered by then, if they are enough."""
        its = self._requests
        with np.errstate(invalid="ignore"):
            over = (its["finished_s"] <= at_s) & (its["status"] == OK) & np.isnan(self.flushed_s)
        rows = np.flatnonzero(over & ~np.isnan(self._decided_s))
        if len(rows) <= self.settings.flush_requests:
            return
        rows = rows[np.argsort(its["finished_s"][rows], kind="stable")]
        self.flushed_s[rows] = at_s
        ranges = [self._ranges.pop(i) for i in rows.tolist() if i in self._ranges]
        if self._losses.random() >= self.settings.lost_flush_ratio:
            ttft_ms = 1e3 * (its["first_token_s"][rows] - self._decided_s[rows])
            self.learner.add(self.rows[rows], ttft_ms, reduce(Ranges.joined, ranges) if ranges else None)

    def _poll(self, at_s: float) -> None:
        """Train if it is due and no training is under way."""
        self._serve(at_s)
        if self._pending is not None or not self.learner.due:
            return
        why = f"{self.learner.samples} new samples"
        trained = self.learner.train()
        ready_s = at_s + self.settings.training_s(trained.rows, len(self._snapshot))
        self._pending = ready_s, trained
        self.trainings.append(Training(why, trained.rows, at_s, ready_s))

    def _serve(self, now_s: float) -> None:
        if self._pending is not None and now_s >= self._pending[0]:
            self.trained, self._pending = self._pending[1], None


def _one_hot(kinds: list[str]) -> Floats:
    """Return a column for each kind, shape (m, kinds); none where all are of one kind."""
    different = list(dict.fromkeys(kinds))
    if len(different) < 2:
        return np.empty((len(kinds), 0))
    return np.array([[float(kind == each) for each in different] for kind in kinds])
