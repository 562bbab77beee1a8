"""Instances fail, come back, join, leave and slow down, and clients leave: nothing is lost count of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.data.jit import LateFunction
from lodestar.data.log import Workload
from lodestar.data.workloads.sharing import sharing_workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.events import Event, parse_event
from lodestar.pipeline.replay.policies import POLICIES
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.routing.compiled import (
    Memory,
    MemoryShape,
    Parameters,
    Prefixes,
    Request,
    rule_function,
)
from lodestar.pipeline.replay.routing.contract import MODEL, Policy
from lodestar.pipeline.replay.routing.uncached import UNCACHED, note_uncached
from lodestar.pipeline.replay.state import CANCELLED, LOST, OK
from lodestar.pipeline.replay.view import RouterView

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
INFLIGHT = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)
HIT = schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)
RUNNING = schema.SNAPSHOT_FIELDS.index(schema.RUNNING_REQUESTS)


def test_the_requests_of_an_instance_that_fails_are_routed_again(busy: Workload, slow: EngineModel) -> None:
    outcome = Cluster.of([slow] * 3, busy, events=[Event(20.0, "fail", 1)]).replay()
    assert (outcome.status == OK).all()
    assert outcome.retries.sum() > 0
    again = outcome.retries > 0
    assert (outcome.instance[again] != 1).all()
    assert (outcome.instance[busy.arrived_at_s > 20.0] != 1).all()
    assert (outcome.queue_ms >= 0).all()
    # The wait before the failure counts.
    assert (busy.arrived_at_s[again] + outcome.ttft_ms[again] / 1e3 > 20.0).all()


def test_or_they_are_lost(busy: Workload, slow: EngineModel) -> None:
    outcome = Cluster.of([slow] * 3, busy, events=[Event(20.0, "fail", 1)], on_failure="lose").replay()
    retried = Cluster.of([slow] * 3, busy, events=[Event(20.0, "fail", 1)]).replay()
    lost = outcome.status == LOST
    assert np.array_equal(lost, retried.retries > 0)
    assert np.isnan(outcome.e2e_ms[lost]).all()
    assert np.isfinite(outcome.e2e_ms[~lost]).all()


def test_an_instance_comes_back_with_an_empty_cache_and_without_metrics(busy: Workload, slow: EngineModel) -> None:
    events = [Event(20.0, "fail", 1), Event(30.0, "join", 1)]
    view = RouterView(scrape_interval_ms=2000.0)
    outcome = Cluster.of([slow] * 3, busy, view, events).replay(make_policy("least-request"), record=True)
    at = busy.arrived_at_s
    away = outcome.snapshots[(at > 20.0) & (at < 30.0), 1]
    assert np.isnan(away).all()
    back = outcome.snapshots[np.flatnonzero(at > 30.0), 1]
    assert back[0, INFLIGHT] == 0
    assert back[0, HIT] == 0
    assert np.isnan(back[0, RUNNING])
    assert np.isfinite(back[at[at > 30.0] > 32.0, RUNNING]).all()
    # It is seen and used at once, though nothing has been read from it yet.
    assert (outcome.instance[(at > 30.0) & (at < 31.0)] == 1).any()


def test_an_instance_that_joins_was_not_there_before(busy: Workload, slow: EngineModel) -> None:
    outcome = Cluster.of([slow] * 4, busy, events=[Event(25.0, "join", 3)]).replay()
    used = outcome.instance == 3
    assert not used[busy.arrived_at_s < 25.0].any()
    assert used[busy.arrived_at_s >= 25.0].any()


def test_an_instance_that_leaves_finishes_what_it_has(busy: Workload, slow: EngineModel) -> None:
    outcome = Cluster.of([slow] * 3, busy, events=[Event(25.0, "leave", 0)]).replay()
    assert (outcome.status == OK).all()
    assert not (outcome.instance[busy.arrived_at_s > 25.0] == 0).any()
    on_it = outcome.instance == 0
    assert (busy.arrived_at_s[on_it] + outcome.e2e_ms[on_it] / 1e3 > 25.0).any()


def test_an_instance_that_slows_down_takes_so_much_longer() -> None:
    workload = Workload(
        np.array([0.0, 100.0]), np.full(2, 1000), np.full(2, 50), np.zeros(0, int), np.zeros(3, int), 16
    )
    outcome = Cluster.of([EngineModel()], workload, events=[parse_event("slow:0@50:2.5")]).replay()
    assert outcome.ttft_ms[1] == pytest.approx(2.5 * outcome.ttft_ms[0])
    assert outcome.tpot_ms[1] == pytest.approx(2.5 * outcome.tpot_ms[0])


def test_a_step_in_flight_ends_as_it_began() -> None:
    workload = Workload(np.zeros(1), np.full(1, 10), np.full(1, 101), np.zeros(0, int), np.zeros(2, int), 16)
    even = replace(EngineModel(), context_token_ms=0.0, decode_sequence_ms=0.0, decode_base_ms=10.0)
    plain = Cluster.of([even], workload).replay()
    event = Event((plain.ttft_ms[0] + 505.0) / 1e3, "slow", 0, 2.0)
    outcome = Cluster.of([even], workload, events=[event]).replay()
    assert outcome.e2e_ms[0] - outcome.ttft_ms[0] == pytest.approx(51 * 10.0 + 49 * 20.0)


def test_without_any_instance_requests_are_lost(busy: Workload, slow: EngineModel) -> None:
    outcome = Cluster.of([slow], busy, events=[Event(10.0, "fail", 0), Event(20.0, "join", 0)]).replay()
    gone = (busy.arrived_at_s > 10.0) & (busy.arrived_at_s < 20.0)
    assert (outcome.status[gone] == LOST).all()
    assert (outcome.status[~gone & (busy.arrived_at_s > 20.0)] == OK).all()


def test_a_client_that_leaves_is_counted_and_frees_what_it_held(busy: Workload, slow: EngineModel) -> None:
    impatient = replace(busy, cancel_after_s=np.where(np.arange(len(busy)) % 5 == 0, 0.5, np.inf))
    outcome = Cluster.of([slow] * 3, impatient).replay()
    left = outcome.status == CANCELLED
    assert left.any()
    assert not left[np.arange(len(busy)) % 5 > 0].any()
    assert np.isnan(outcome.e2e_ms[left]).all()
    assert not (outcome.ttft_ms[left] > 500.0).any()
    assert outcome.ttft_ms[~left].mean() < Cluster.of([slow] * 3, busy).replay().ttft_ms[~left].mean()


@pytest.mark.parametrize("written", ["fail:2", "melt:1@5", "slow:0@5:0", "fail:x@3", "slow:1@5", "fail:1@5:2"])
def test_what_can_not_happen_is_refused(written: str) -> None:
    with pytest.raises(ConfigError, match="event"):
        parse_event(written)


def test_an_event_for_an_instance_that_the_cluster_lacks_is_refused(busy: Workload, slow: EngineModel) -> None:
    with pytest.raises(ConfigError, match="names instance 3; expected 0 to 2"):
        Cluster.of([slow] * 3, busy, events=[Event(1.0, "fail", 3)])


clusters = st.tuples(
    st.integers(1, 4),
    st.lists(
        st.builds(
            Event,
            at_s=st.floats(0.0, 40.0),
            kind=st.sampled_from(["fail", "join", "leave", "slow"]),
            instance=st.integers(0, 3),
            factor=st.sampled_from([0.5, 1.0, 3.0]),
        ),
        max_size=6,
    ),
    st.sampled_from(["retry", "lose"]),
    st.sampled_from([policy.name for policy in POLICIES if policy.predictor != MODEL]),
    st.sampled_from([6_000, 20_000, 400_000]),
    st.sampled_from([0.0, 130.0]),
    st.booleans(),
    st.integers(0, 10_000),
)


@rule_function
def _ahead_on_the_first(
    request: Request,
    snapshot: Floats,
    predicted_ms: Floats,
    candidates: Ints,
    prefixes: Prefixes,
    memory: Memory,
    parameters: Parameters,
    cost: Floats,
) -> None:
    for j in candidates:
        cost[j] = memory.of_instance[0, 0]


@dataclass(frozen=True, slots=True)
class Watcher(Policy):
    """Anyone, at the cost of the tokens that are still to be computed on instance 0."""

    name: ClassVar[str] = "watcher"
    rule: ClassVar[LateFunction] = _ahead_on_the_first
    notice: ClassVar[LateFunction] = note_uncached
    memory: ClassVar[MemoryShape] = UNCACHED


def test_a_policy_hears_what_becomes_of_requests_on_an_instance_that_leaves(busy: Workload, slow: EngineModel) -> None:
    ahead = Cluster.of([slow] * 3, busy, events=[Event(20.0, "leave", 0)]).replay(Watcher(), record=True).costs[:, 1]
    assert ahead[busy.arrived_at_s < 20.0].max() > 1000.0
    assert (ahead[busy.arrived_at_s > 40.0] == 0.0).all()


@settings(max_examples=80, deadline=None)
@given(made=clusters)
def test_whatever_happens_every_request_ends_once_and_everything_is_given_back(
    made: tuple[int, list[Event], str, str, int, float, bool, int],
) -> None:
    m, events, on_failure, policy, capacity, interval_ms, chunked, seed = made
    workload = sharing_workload(120, rate_per_s=4.0 * m, sharing_ratio=0.5, seed=seed, prompt_tokens=(300, 900, 1800))
    rng = np.random.default_rng(seed)
    workload = replace(workload, cancel_after_s=rng.choice([np.inf, np.inf, 0.4, 3.0], 120))
    engine = EngineModel.preset("l40s-llama-3.1-8b")
    engines = [
        replace(
            engine,
            kv_capacity_tokens=capacity,
            chunked_prefill=chunked,
            prefix_caching=j != 1,
            block_tokens=16 + 16 * (j % 2),
            request_overhead_ms=5.0 * j,
            response_overhead_ms=3.0 * j,
        )
        for j in range(m)
    ]
    view = RouterView(interval_ms, index_block_tokens=1 + 15 * (m % 2), index_capacity_blocks=300 * (m % 3))
    there = [event for event in events if event.instance < m]
    cluster = Cluster.of(engines, workload, view, there, on_failure)
    state, memory = cluster.final_state(make_policy(policy), None, seed)
    requests, instances, slots = (np.asarray(part) for part in (state.requests, state.instances, state.slots))
    answered = requests["status"] == OK
    assert (requests["finished_s"][answered] >= requests["first_token_s"][answered]).all()
    assert np.isin(requests["status"], [OK, CANCELLED, LOST]).all()
    assert (requests["finished_s"][answered] > requests["arrived_at_s"][answered]).all()
    for name in ("inflight", "inflight_prefill", "prefill_tokens", "decoding", "waiting", "fresh", "context_tokens"):
        assert (instances[name] == 0).all(), name
    for name in ("held_blocks", "decoding_prompt_tokens", "preempted_tokens", "aborting"):
        assert (instances[name] == 0).all(), name
    assert (instances["partial"] == -1).all()
    assert (slots["users"] == 0).all()
    assert slots["cached_blocks"].sum() == instances["idle_blocks"].sum()
    assert (np.asarray(state.block_phase) == 0).all()
    again, remembered = cluster.final_state(make_policy(policy), None, seed)
    assert np.asarray(again.requests).tobytes() == requests.tobytes()
    assert all(one.tobytes() == other.tobytes() for one, other in zip(memory, remembered, strict=True))
