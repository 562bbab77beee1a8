"""What one server knows: the model that serves, the instances, the decisions whose outcome is not known yet."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.schema import HIT_RATIO, SNAPSHOT_FIELDS
from lodestar.models.online.brain import Brain
from lodestar.models.online.finished import Finished
from lodestar.pipeline.online.reservations import Reservations
from lodestar.pipeline.online.router import COLD_START, FALLBACK, MODEL, Decision, OnlineRouter
from lodestar.pipeline.serve.accuracy import Accuracy
from lodestar.pipeline.serve.decision_log import DecisionLog
from lodestar.pipeline.serve.fleet import Fleet
from lodestar.pipeline.serve.learning import Learning
from lodestar.pipeline.serve.llm_d_contract import ModelText, Objective
from lodestar.pipeline.serve.llm_d_window import LlmDWindow
from lodestar.pipeline.serve.metrics import Metrics
from lodestar.pipeline.serve.options import MIB, ServeOptions
from lodestar.pipeline.serve.pending import Pending, Waiting
from lodestar.pipeline.serve.policy import served_policy
from lodestar.pipeline.serve.reload import Loaded, read_artifact
from lodestar.pipeline.serve.untold import Untold

__all__ = ["COLD_START", "FALLBACK", "MODEL", "Answer", "Ask", "Serving"]

Floats = NDArray[np.float64]

_JUDGED_AT_ONCE: Final = 128
_TIDIED_AT_ONCE: Final = 16
_HIT: Final = SNAPSHOT_FIELDS.index(HIT_RATIO)
_LOG: Final = logging.getLogger(__name__)


@dataclass(slots=True)
class Ask:
    """A request that is to be routed.

    Attributes:
        request_id: of the request.
        prompt_tokens: 0 where not known.
        names: the candidates.
        kinds: the hardware of each; '' where not known.
        snapshot: shape (len(names), len(SNAPSHOT_FIELDS)), NaN where a field is not known.
        group: names the prefix that the request shares; -1 where it shares none.
        session_id: names the conversation; None where none is told.
        inflight_told: whether the snapshot tells the requests in flight before and after their first token.
    """

    request_id: str
    prompt_tokens: int
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    snapshot: Floats
    group: int = -1
    session_id: str | None = None
    inflight_told: bool = True


@dataclass(slots=True)
class Answer:
    """What was decided.

    Attributes:
        best: place of the choice among the candidates.
        followed: whether the caller is to take it; in shadow mode, and where a gateway falls back, it is not.
        source: 'model', 'cold start' or 'fallback'.
        explored: another candidate than the cheapest was drawn.
        tied: it was drawn among several that are the cheapest.
        cost: of each candidate in ms; infinite for one that the policy leaves out.
        probability: of each candidate.
        predicted_ms: TTFT and TPOT of each, shape (candidates, 2); NaN without a model.
        version: of the model; None without one.
    """

    best: int
    followed: bool
    source: str
    explored: bool
    tied: bool
    cost: Floats
    probability: Floats
    predicted_ms: Floats
    version: str | None


class Serving:
    """Decides, remembers, learns, and swaps models, for all routes of one server.

    Decisions are made one at a time, under a lock that a swap takes as well: each is made by one model as a whole.

    Attributes:
        options: what the server was started with.
        metrics: for Prometheus.
        waiting: decisions without an outcome.
        objective: which number llm-d gets.
        llm_d: what llm-d sent last.
        trains: models put in place since the start.
        flushes: batches of finished lines that came.
    """

    def __init__(self, options: ServeOptions) -> None:
        self.options, self.metrics = options, Metrics()
        self.objective = Objective(options.objective, options.quantile)
        self.llm_d = LlmDWindow()
        self.trains = self.flushes = 0
        self.waiting = Waiting(options.keep_s)
        self.held = Reservations(options.reservation_ms)
        self._untold = Untold()
        self._lock, self._loading = threading.Lock(), threading.Lock()
        self._random = random.Random(options.seed)
        self._loaded: Loaded | None = None
        policy, settings = served_policy({}, options.policy)
        if options.artifact is not None:
            self._loaded = read_artifact(options.artifact, options.policy)
            policy, settings = self._loaded.policy, self._loaded.settings
        self._policy, self._settings = policy, settings
        self._fleet = Fleet(OnlineRouter(settings, [], [], self.brain))
        self.learner = Learning()
        self.accuracy = Accuracy(self.metrics)
        self.log = self._decision_log()
        self._tell()

    def _decision_log(self) -> DecisionLog | None:
        if self.options.decision_log is None:
            return None
        drops = self.metrics.log_drops
        return DecisionLog(
            self.options.decision_log,
            self.options.log_mib * MIB,
            self.metrics.logged.inc,
            lambda why: drops.labels(why).inc(),
        )

    # What serves, also for the routes of llm-d: see `ServesLlmD`.

    @property
    def brain(self) -> Brain | None:
        """What predicts now; None before there is a trained model."""
        return self._loaded.brain if self._loaded else None

    @property
    def version(self) -> str | None:
        """Name the artifact that serves; None before there is one."""
        return self._loaded.version if self._loaded else None

    @property
    def policy_name(self) -> str:
        """Name the policy that decides."""
        return self._policy

    @property
    def counts_uncached(self) -> bool:
        """Whether the models are taught the tokens ahead without what is cached of them, which no gateway tells."""
        return self._settings.count_uncached

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return the kinds of instances that are routed to."""
        return tuple(dict.fromkeys(self._fleet.router.kinds))

    @property
    def explores(self) -> bool:
        """Whether the policy draws other candidates than the cheapest on purpose."""
        return self._settings.exploration > 0.0

    @property
    def loaded_at_s(self) -> float | None:
        """Say when `brain` came into use, in Unix time."""
        return self._loaded.loaded_at_s if self._loaded else None

    @property
    def learning(self) -> bool:
        """Whether `learn` changes the model."""
        return self.options.learn

    def model_texts(self) -> Mapping[str, ModelText]:
        """Return the models in use: target → text; empty before there is one."""
        loaded = self._loaded
        if loaded is None:
            return {}
        return {target: ModelText(loaded.values[target], trees) for target, trees in loaded.texts.items()}

    def learn(self, rows: Finished) -> None:
        """Take finished requests to learn from, and judge by them what serves."""
        brain, known = self.brain, rows.ttft_ms > 0
        if brain is None:
            self.learner.add(rows)
            return
        kinds, features, ttft_ms = rows.kind[known], rows.features[known], rows.ttft_ms[known]
        for some in range(0, len(ttft_ms), _JUDGED_AT_ONCE):  # others judge in between
            these = slice(some, some + _JUDGED_AT_ONCE)
            self.accuracy.judge(brain, kinds[these].tolist(), features[these], ttft_ms[these])
        self.learner.add(rows, brain.predict_features(rows.features, rows.kind.tolist()).ttft_ms)

    def forget(self) -> None:
        """Drop what was kept to learn from."""
        self.learner.forget()

    def reload(self) -> str | None:
        """Read the artifact again; return why the old one stays in use, or None."""
        if self.options.artifact is None:
            return "this server was started without an artifact; expected one to read again. It learns from its traffic"
        return self.load(self.options.artifact, "request")

    def load(self, place: Any, by: str) -> str | None:
        """Put the artifact at `place` to work if every check passes; return why not, or None.

        Args:
            place: directory, archive or URL.
            by: 'request', 'watch' or 'refit', for the metrics.
        """
        with self._loading:
            try:
                loaded = read_artifact(place, self.options.policy)
                self._swap(loaded)
            except Exception as error:
                # Half-written or damaged files fail in many ways, and none of them may stop what serves.
                why = str(error) or type(error).__name__
                _LOG.error("%s is not loaded, %s serves on: %s", place, self.version or "nothing", why)
                self.metrics.reload_failures.labels(by).inc()
                return why
            self.metrics.reloads.labels(by).inc()
            _LOG.info("%s serves, from %s", loaded.version, place)
            return None

    def _swap(self, loaded: Loaded) -> None:
        changed = (loaded.policy, loaded.settings) != (self._policy, self._settings)
        fleet = Fleet(OnlineRouter(loaded.settings, [], [], loaded.brain)) if changed else None
        with self._lock:
            if fleet is not None:
                self._policy, self._settings, self._fleet = loaded.policy, loaded.settings, fleet
                self.held.clear()
            self._loaded, self._fleet.router.brain = loaded, loaded.brain
            self.trains += 1
        self._tell()

    def _tell(self) -> None:
        if self._loaded is not None:
            self.metrics.model(self._loaded.version, self._loaded.trained_at_s)

    # Decisions

    def decide(self, ask: Ask, route: str, *, falls_back: bool) -> Answer:
        """Decide on a request, and remember it until its outcome is known.

        Args:
            ask: the request with its candidates.
            route: that it came by, for the metrics.
            falls_back: the caller decides by itself wherever no model did.
        """
        with self._lock:
            now_s = time.time()
            loaded, fleet = self._loaded, self._fleet_for(len(ask.names))
            if not ask.inflight_told:
                self._untold.fill(ask.names, ask.snapshot)
            rows = fleet.rows(ask.names, ask.kinds)
            every = fleet.snapshot(rows, ask.snapshot)
            self.held.into(now_s, every)
            decision = fleet.router.decide(now_s, ask.prompt_tokens, every, rows, ask.group, self._random.random())
            best = rows.index(decision.instance)
            followed = not self.options.shadow and (decision.source == MODEL or not falls_back)
            if followed:
                self._take_down(now_s, ask, best, decision.instance, every[decision.instance, _HIT])
            else:
                fleet.router.passed(ask.prompt_tokens, every[decision.instance, _HIT])
            its = fleet.of(rows)
        answer = _answer(decision, its, best, followed, loaded.version if loaded else None)
        self._note(answer, route, int(np.count_nonzero(decision.outside[its])))
        self._remember(ask, answer, decision.snapshot[its], every[its], now_s, loaded)
        return answer

    def _take_down(self, now_s: float, ask: Ask, best: int, instance: int, hit_ratio: float) -> None:
        """Count a request where it goes, for the decisions to come."""
        self.held.add(now_s, ask.request_id, instance, float(ask.prompt_tokens))
        self._fleet.router.sent(now_s, instance, ask.prompt_tokens, hit_ratio)
        self._untold.sent(ask.names[best], ask.prompt_tokens)

    def went(self, pending: Pending, at: int) -> None:
        """Hear where a request went that the gateway decided on itself."""
        with self._lock:
            fleet = self._fleet
            row = fleet.rows((pending.names[at],), (pending.kinds[at],))[0]
            fleet.router.went(row, pending.prompt_tokens, pending.told[at, _HIT])

    def _fleet_for(self, candidates: int) -> Fleet:
        """Return the fleet, begun anew where most of it is gone."""
        if self._fleet.outgrown(candidates):
            self._fleet = Fleet(OnlineRouter(self._settings, [], [], self.brain))
            self.held.clear()
        return self._fleet

    def _note(self, answer: Answer, route: str, outside: int) -> None:
        self.metrics.decided(route, answer.source)
        if outside:
            self.metrics.outside.inc(outside)
        if answer.explored:
            self.metrics.explored.inc()

    def _remember(
        self, ask: Ask, answer: Answer, snapshot: Floats, told: Floats, now_s: float, loaded: Loaded | None
    ) -> None:
        modelled = answer.source == MODEL
        before = self.waiting.add(
            Pending(
                request_id=ask.request_id,
                session_id=ask.session_id,
                decided_at_s=now_s,
                prompt_tokens=ask.prompt_tokens,
                names=ask.names,
                kinds=ask.kinds,
                snapshot=snapshot,
                told=told,
                score=answer.cost,
                probability=answer.probability if answer.followed else None,
                predicted_ms=answer.predicted_ms[:, 0] if modelled else None,
                chosen=answer.best if answer.followed else None,
                policy=self._policy if answer.followed else None,
                version=answer.version,
                brain=loaded.brain if loaded else None,
            )
        )
        if before is not None:
            self.metrics.outcomes.labels("asked again").inc()

    # Housekeeping

    def learning_job(self) -> dict[str, Any]:
        """Return what the process that learns needs to know: what serves, and by what settings."""
        loaded = self._loaded
        return {
            "seed": self.options.seed + self.trains,
            "refit_s": self.options.refit_s,
            "kinds": self.kinds,
            "policy": {"name": self._policy, "settings": self._settings.to_dict()},
            "incumbent": None if loaded is None else {"values": dict(loaded.values), "texts": loaded.texts},
        }

    async def tidy(self, now_s: float) -> None:
        """Let go of decisions whose outcome has not come, and tell Prometheus how many of what there are."""
        for count, pending in enumerate(self.waiting.overdue(now_s)):
            self.metrics.outcomes.labels("never came").inc()
            if self.log is not None:
                self.log.put(pending, None)
            if count % _TIDIED_AT_ONCE == 0:
                await asyncio.sleep(0)
        self.metrics.pending.set(len(self.waiting))
        self.metrics.reserved.set(len(self.held))
        self.metrics.instances.set(len(self._fleet))
        self.metrics.rows.set(len(self.learner))

    def close(self) -> None:
        """Write what is not written yet: decisions without an outcome are logged as such."""
        if self.log is not None:
            for pending in self.waiting.drain():
                self.log.put(pending, None)
            self.log.close()


def _answer(decision: Decision, its: slice | list[int], best: int, followed: bool, version: str | None) -> Answer:
    cost = decision.cost[its]
    return Answer(
        best=best,
        followed=followed,
        source=decision.source,
        explored=decision.explored,
        tied=not decision.explored and bool(np.count_nonzero(cost == cost[best]) > 1),
        cost=cost,
        probability=decision.probability[its],
        predicted_ms=decision.predicted_ms[its],
        version=version,
    )
