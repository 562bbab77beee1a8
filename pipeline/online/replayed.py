"""The online loop in replay time: requests finish, batches are flushed, models train and serve when they are ready.

Nothing is known before a real router would know it: an outcome arrives with the flush after the request finished, and a
model serves only after its training would have ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.log import Workload
from lodestar.features.definitions import FEATURES, candidate_features
from lodestar.models.engine import EngineModel
from lodestar.models.online.brain import Brain
from lodestar.models.online.finished import Finished
from lodestar.models.online.learner import Learner, train_models
from lodestar.pipeline.online.router import Decision, OnlineRouter
from lodestar.pipeline.online.saturation import prefix_groups
from lodestar.pipeline.online.settings import OnlineSettings
from lodestar.pipeline.replay.prefixes import PrefixTree
from lodestar.pipeline.replay.routing.contract import Fleet
from lodestar.pipeline.replay.routing.learning import uniform_of_try
from lodestar.pipeline.replay.state import CANCELLED, OK

__all__ = ["OnlineRun", "Training", "kinds_of"]

Floats = NDArray[np.float64]

_HIT: Final = schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)
_INFLIGHT: Final = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)


@dataclass(frozen=True, slots=True)
class Training:
    """One training of a run.

    Attributes:
        why: it was due.
        rows: it was given.
        at_s: it began.
        served_from_s: its model decided.
    """

    why: str
    rows: int
    at_s: float
    served_from_s: float


def kinds_of(engines: Sequence[EngineModel] | None, instances: int) -> list[str]:
    """Name the hardware of every instance: equal engines are of one kind; '' where all are.

    >>> kinds_of([EngineModel(), EngineModel(), EngineModel().slowed(2.0)], 3)
    ['kind-0', 'kind-0', 'kind-1']
    """
    different = list(dict.fromkeys(engines or ()))
    if engines is None or len(different) < 2:
        return [""] * instances
    return [f"kind-{different.index(engine)}" for engine in engines]


class OnlineRun:
    """One run of a policy that learns, as the cluster asks it.

    Attributes:
        router: that decides.
        learner: that says when to train, and on what.
        trainings: so far.
        probability: of every instance at the last decision, shape (m,).
        cost: the same.
    """

    def __init__(self, settings: OnlineSettings) -> None:
        """Prepare it; `begin` begins.

        Raises:
            ConfigError: a setting is not known.
        """
        self.settings = settings
        self.router = OnlineRouter(settings)
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
        kinds = kinds_of(fleet.engines, m)
        self.learner = Learner(self.settings.learner, tuple(dict.fromkeys(kinds)))
        self.router = OnlineRouter(self.settings, fleet.names, kinds)
        self.trainings = []
        self._prompt_tokens = workload.prompt_tokens.astype(np.float64).tolist()
        self._snapshot, self._clock_s, self._requests, self._seed = snapshot, clock_s, requests, seed
        self._uniform = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,))).random(n)
        self._groups = prefix_groups(tree)
        self._features = np.full((n, len(FEATURES)), np.nan)
        self._decided_s, self._predicted_ms = np.full(n, np.nan), np.full(n, np.nan)
        self._learned = np.zeros(n, dtype=np.bool_)
        self._flushed_s, self._serves_since_s = 0.0, 0.0
        self._pending: tuple[float, Brain] | None = None

    def decide(self, i: int) -> int:
        """Return the instance for request i."""
        now_s = float(self._clock_s[0])
        self._flush(now_s)
        candidates = np.flatnonzero(~np.isnan(self._snapshot[:, _INFLIGHT]))
        prompt_tokens = self._prompt_tokens[i]
        uniform = uniform_of_try(float(self._uniform[i]), int(self._requests["retries"][i]))
        made = self.router.decide(now_s, prompt_tokens, self._snapshot, candidates, int(self._groups[i]), uniform)
        self.probability, self.cost = made.probability, made.cost
        self._keep(i, now_s, prompt_tokens, made)
        self.router.sent(now_s, made.instance, prompt_tokens, float(self._snapshot[made.instance, _HIT]))
        return made.instance

    def _keep(self, i: int, now_s: float, prompt_tokens: float, made: Decision) -> None:
        """Keep what was known at the decision: what is learned from is what was decided by."""
        rows = np.empty((len(made.snapshot), len(FEATURES)))
        candidate_features(prompt_tokens, made.snapshot, rows)
        self._features[i] = rows[made.instance]
        self._decided_s[i], self._predicted_ms[i] = now_s, made.predicted_ms[made.instance, 0]

    def _flush(self, now_s: float) -> None:
        """Take in what has finished by the last flush, train if that is due, and let a finished training serve."""
        if self._pending is not None and now_s >= self._pending[0]:
            self.router.brain, self._pending, self._serves_since_s = self._pending[1], None, now_s
        at_s = np.floor(now_s / self.settings.flush_s) * self.settings.flush_s
        if at_s <= self._flushed_s:
            return
        self._flushed_s = at_s
        self.learner.add(*self._finished(at_s))
        why = self.learner.due(at_s)
        if why is not None and self._pending is None:
            self._train(why, at_s)

    def _train(self, why: str, at_s: float) -> None:
        rows = self.learner.training_rows(at_s)
        brain = self.trained(rows, at_s)
        ready_s = at_s + self.settings.training_base_s + self.settings.training_row_ms * len(rows) / 1e3
        self._pending = ready_s, brain
        self.trainings.append(Training(why, len(rows), at_s, ready_s))

    def trained(self, rows: Finished, at_s: float) -> Brain:
        """Return the brain that learned from the rows."""
        its = self.settings
        targets = (schema.TTFT_MS, schema.TPOT_MS) if its.tpot_weight or its.e2e_weight else (schema.TTFT_MS,)
        models = train_models(rows, seed=self._seed, targets=targets)
        return Brain.of_models(models, rows, at_s, f"online-{len(self.trainings) + 1}")

    def _finished(self, until_s: float) -> tuple[Finished, Floats]:
        """Return the requests that were over by then and not yet learned from, with their predicted TTFT."""
        its = self._requests
        with np.errstate(invalid="ignore"):
            over = (its["finished_s"] <= until_s) & ~self._learned & ~np.isnan(self._decided_s)
        rows = np.flatnonzero(over & ((its["status"] == OK) | (its["status"] == CANCELLED)))
        rows = rows[np.argsort(its["finished_s"][rows], kind="stable")]
        self._learned[rows] = True
        answered = its["status"][rows] == OK
        first_s, end_s = its["first_token_s"][rows], its["finished_s"][rows]
        later = np.where(its["output_tokens"][rows] > 1, its["output_tokens"][rows] - 1, np.nan)
        heard = answered | (first_s <= end_s)
        finished = Finished(
            features=self._features[rows],
            kind=np.array([self.router.kinds[j] for j in its["instance"][rows]], dtype=np.str_),
            ttft_ms=1e3 * (np.where(heard, first_s, end_s) - self._decided_s[rows]),
            tpot_ms=np.where(answered, 1e3 * (end_s - first_s) / later, np.nan),
            censored=~heard,
            decided_at_s=self._decided_s[rows],
            finished_at_s=end_s,
        )
        # What an earlier model predicted says nothing of the one that serves.
        its_own = self._decided_s[rows] >= self._serves_since_s
        return finished, np.where(its_own, self._predicted_ms[rows], np.nan)
