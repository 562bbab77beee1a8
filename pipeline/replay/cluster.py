"""A cluster of simulated instances: a workload goes in with a policy, outcomes come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError
from lodestar.data.log import Workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.asking import Asked
from lodestar.pipeline.replay.events import ON_FAILURE, Event
from lodestar.pipeline.replay.foresight import room_aside
from lodestar.pipeline.replay.loop import How, Recorder, Room, no_decision, run
from lodestar.pipeline.replay.policies.random_choice import RandomChoice
from lodestar.pipeline.replay.prefixes import PrefixTree, prefix_tree
from lodestar.pipeline.replay.routing.compiled import Memory, no_notice
from lodestar.pipeline.replay.routing.contract import ENGINE, NOTHING, Fleet, Policy
from lodestar.pipeline.replay.routing.learning import LearningRun
from lodestar.pipeline.replay.routing.predictions import Desk
from lodestar.pipeline.replay.state import OK, State, new_state
from lodestar.pipeline.replay.view import RouterView

__all__ = ["Cluster", "Interpreted", "Outcome"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SmallInts = NDArray[np.int32]


class Interpreted(Protocol):
    """A policy in plain Python, asked for one instance a decision."""

    @property
    def probability(self) -> Floats:
        """Return what it said of every instance at its last decision, shape (m,); NaN where it said nothing."""

    def start(self, workload: Workload, snapshot: Floats, seed: int, clock_s: Floats | None = None) -> None:
        """Begin a run; `snapshot` and `clock_s` will hold what the router sees at each decision, and when.

        Args:
            workload: what will be decided on.
            snapshot: shape (m, len(SNAPSHOT_FIELDS)).
            seed: of the numbers that the policy draws.
            clock_s: shape (1,); None: a request is decided on as it arrives.
        """

    def decide(self, i: int) -> int:
        """Return the instance for request i."""


AnyPolicy = Policy | Interpreted | LearningRun


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of every request in one run, shape (n,) each.

    TPOT is NaN for a request of one token, and every latency for a request that did not get so far.

    Attributes:
        instance: where it was sent last; -1: nowhere.
        cached_tokens: of its prompt, found in the engine's cache.
        router_hit_tokens: that the router believed to be there.
        status: 0 answered, 1 cancelled by its client, 2 lost with its instance.
        queue_ms: in the engine, before its first step.
        preemptions: how often it gave its blocks back and was computed again.
        retries: how often it was routed again because its instance failed.
        snapshots: what the router saw for each recorded request, shape (k, m, fields), k = 0 when none was.
        probabilities: that the policy gave each instance, shape (k, m); NaN where it told none.
        costs: that it gave each, shape (k, m); NaN where it told none, inf for what was no candidate.
        imbalance: in-flight requests of the fullest instance above the mean, averaged over decisions.
    """

    instance: SmallInts
    ttft_ms: Floats
    tpot_ms: Floats
    e2e_ms: Floats
    cached_tokens: SmallInts
    router_hit_tokens: SmallInts
    status: NDArray[np.int8]
    queue_ms: Floats
    preemptions: SmallInts
    retries: SmallInts
    snapshots: Floats
    probabilities: Floats
    costs: Floats
    imbalance: float


@dataclass(frozen=True, slots=True)
class Cluster:
    """Instances, and the workload they are to serve; each run starts with idle engines and empty caches.

    Make one with `Cluster.of`, which lays out the prefixes once for all runs.

    Attributes:
        engines: one an instance.
        workload: the requests.
        tree: their prefixes.
        view: what the router knows of the engines.
        events: what happens to instances.
        on_failure: whether the gateway sends the requests of a failed instance again ('retry') or not ('lose').
        names: of the instances, by which some policies hash; instance-00, … where there are not as many.
    """

    engines: list[EngineModel]
    workload: Workload
    tree: PrefixTree
    view: RouterView = field(default_factory=RouterView)
    events: tuple[Event, ...] = ()
    on_failure: str = "retry"
    names: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        engines: list[EngineModel],
        workload: Workload,
        view: RouterView | None = None,
        events: Sequence[Event] = (),
        on_failure: str = "retry",
        names: Sequence[str] = (),
    ) -> Cluster:
        """Put instances before a workload."""
        if not engines:
            raise ConfigError("the cluster has no instances; expected at least one")
        return cls(
            engines, workload, prefix_tree(workload), view or RouterView(), tuple(events), on_failure, tuple(names)
        )

    def __post_init__(self) -> None:
        """Refuse what could never finish."""
        largest = int((self.workload.prompt_tokens + self.workload.output_tokens).max(initial=0))
        for engine in self.engines:
            if largest > engine.kv_capacity_tokens // engine.block_tokens * engine.block_tokens:
                raise ConfigError(
                    f"a request of {largest} tokens does not fit into an engine that holds "
                    f"{engine.kv_capacity_tokens}; expected every request to fit alone. Raise --kv-capacity-tokens or "
                    "name another --engine"
                )
        for event in self.events:
            if event.instance >= len(self.engines):
                raise ConfigError(
                    f"event {event} names instance {event.instance}; expected 0 to {len(self.engines) - 1}"
                )
        if self.on_failure not in ON_FAILURE:
            raise ConfigError(f"on failure {self.on_failure!r}; expected one of {', '.join(ON_FAILURE)}")

    @property
    def fleet(self) -> Fleet:
        """Return the instances as a policy knows them."""
        named = len(self.names) == len(self.engines)
        return Fleet(self.names, self.engines) if named else Fleet.of(self.engines)

    def with_engines(self, engines: list[EngineModel]) -> Cluster:
        """Return the same cluster with other instances."""
        return replace(self, engines=engines)

    def replay(
        self,
        policy: AnyPolicy | None = None,
        *,
        forced: Ints | None = None,
        seed: int = 0,
        record: bool | range = False,
        single_steps: bool = False,
        always: bool = False,
    ) -> Outcome:
        """Run the workload under `policy`, or with the `forced` instance of each request.

        Random numbers are drawn once a request, in the order of the workload, so that two policies with one seed
        meet the same requests with the same luck.

        Args:
            policy: a compiled one, or one in plain Python, which is much slower; random, if none.
            forced: instance of each request; where it is -1 or not a candidate at that moment, the policy decides.
            seed: of the policy's draws and of the engines' noise.
            record: whether to keep what the router saw, or for which requests.
            single_steps: take every decode step by itself; the results are the same.
            always: ask the policy even where the choice is forced, and record what it would have done there. It hears
                of what really happens.
        """
        rows = record if isinstance(record, range) else range(len(self.workload) if record else 0)
        recorder = Recorder.of(rows, len(self.engines))
        return _outcome(self.final_state(policy, forced, seed, recorder, single_steps, always)[0], recorder)

    def final_state(
        self,
        policy: AnyPolicy | None,
        forced: Ints | None,
        seed: int,
        recorder: Recorder | None = None,
        single_steps: bool = False,
        always: bool = False,
    ) -> tuple[State, Memory]:
        """Run as `replay` does, and return all that is left of the run: the cluster, and the policy's memory."""
        m = len(self.engines)
        uniform, state = self._begin(seed, single_steps)
        room = Room.of(m)
        asked = None if policy is None or isinstance(policy, Policy) else policy
        compiled = policy if isinstance(policy, Policy) else RandomChoice()
        decide: Any = no_decision
        if asked is not None:
            self._start(asked, state, room, seed)
            decide = Asked(_deciding(asked, room))
        memory = compiled.memory.memory(m, len(self.tree.node_end), len(self.workload))
        listens = asked is None and compiled.notice is not no_notice
        run(
            state,
            compiled.rule.compiled,
            compiled.notice.compiled,
            decide,
            How(
                asked is not None, listens, NOTHING if asked else compiled.predictor, compiled.pick().numbers(), always
            ),
            memory,
            compiled.parameters(self.fleet),
            compiled.predictors,
            Desk.of(m, *compiled.predictors),
            room_aside(state, compiled.predictor == ENGINE),
            np.zeros(0, dtype=np.int64) if forced is None else np.ascontiguousarray(forced, dtype=np.int64),
            uniform,
            room,
            recorder or Recorder.of(range(0), m),
        )
        if asked is not None and decide.error is not None:
            raise decide.error
        return state, memory

    def _start(self, asked: Interpreted | LearningRun, state: State, room: Room, seed: int) -> None:
        clock_s = np.asarray(state.clock)["now_s"]
        if isinstance(asked, LearningRun):
            requests = np.asarray(state.requests)
            asked.begin(self.workload, self.tree, self.fleet, room.snapshot, clock_s, requests, seed)
        else:
            asked.start(self.workload, room.snapshot, seed, clock_s)

    def _begin(self, seed: int, single_steps: bool) -> tuple[Floats, State]:
        n = len(self.workload)
        rng = np.random.default_rng(seed)
        uniform, noise = rng.random(n), rng.standard_normal(n)
        sigma = np.array([engine.noise_ratio for engine in self.engines]).mean()
        state = new_state(
            self.engines,
            self.workload,
            self.tree,
            np.exp(sigma * noise - sigma**2 / 2),
            self.view,
            self.events,
            self.on_failure,
            single_steps,
        )
        return uniform, state


def _deciding(policy: Interpreted | LearningRun, room: Room) -> Callable[[int], int]:
    """Let a policy decide, and take down what it says of probabilities and costs."""
    costs = isinstance(policy, LearningRun)

    def decide(i: int) -> int:
        chosen = policy.decide(i)
        room.probability[:] = policy.probability
        if costs:
            room.cost[:] = policy.cost  # type: ignore[union-attr]
        return chosen

    return decide


def _outcome(state: State, recorder: Recorder) -> Outcome:
    requests, clock = np.asarray(state.requests), np.asarray(state.clock)[0]
    finished_s = np.where(requests["status"] == OK, requests["finished_s"], np.nan)
    # A request of one token has no time per later token.
    later_tokens = np.where(requests["output_tokens"] > 1, requests["output_tokens"] - 1, np.nan)
    return Outcome(
        instance=requests["instance"].copy(),
        ttft_ms=(requests["first_token_s"] - requests["arrived_at_s"]) * 1e3,
        tpot_ms=(finished_s - requests["first_token_s"]) * 1e3 / later_tokens,
        e2e_ms=(finished_s - requests["arrived_at_s"]) * 1e3,
        cached_tokens=requests["cached_tokens"].copy(),
        router_hit_tokens=requests["router_hit_tokens"].copy(),
        status=requests["status"].astype(np.int8),
        queue_ms=(requests["started_s"] - requests["entered_s"]) * 1e3,
        preemptions=requests["preemptions"].copy(),
        retries=requests["retries"].copy(),
        snapshots=recorder.snapshots,
        probabilities=recorder.probabilities,
        costs=recorder.costs,
        imbalance=float(clock["imbalance"]) / max(int(clock["decisions"]), 1),
    )
