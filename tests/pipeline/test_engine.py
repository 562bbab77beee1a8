"""The engine against a step-by-step oracle, queueing theory and conservation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lodestar.data.errors import ConfigError
from lodestar.data.log import Workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.loop import run
from lodestar.pipeline.replay.policies import make_policy
from lodestar.pipeline.replay.state import new_state
from oracles.step_by_step import serve

requests = st.lists(
    st.tuples(st.floats(1e-4, 0.5), st.integers(1, 3000), st.integers(1, 60)),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    requests=requests,
    capacity=st.sampled_from([4096, 8192, 400_000]),
    sequences=st.sampled_from([2, 8, 256]),
    batched=st.sampled_from([256, 2048]),
)
def test_strides_give_what_single_steps_give(
    plain: Callable[..., Workload], requests: list[tuple[float, int, int]], capacity: int, sequences: int, batched: int
) -> None:
    gaps, prompt, output = zip(*requests, strict=True)
    workload = plain(np.cumsum(gaps).tolist(), list(prompt), list(output))
    engine = replace(
        EngineModel(), kv_capacity_tokens=capacity, max_sequences=sequences, max_batched_tokens=batched, request_overhead_ms=7.0
    )
    outcome = Cluster.of([engine], workload).replay(make_policy("random"))
    first, finished = serve(engine, workload)
    np.testing.assert_allclose(outcome.ttft_ms, (np.array(first) - workload.arrived_at_s) * 1e3, rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(outcome.e2e_ms, (np.array(finished) - workload.arrived_at_s) * 1e3, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_one_server_with_even_work_waits_as_m_d_1(plain: Callable[..., Workload], load: float) -> None:
    n, service_s = 200_000, 0.01
    engine = EngineModel(
        prefill_base_ms=service_s * 1e3, prompt_token_ms=0, attention_ms=0, max_sequences=1, prefix_caching=False
    )
    arrived = np.cumsum(np.random.default_rng(3).exponential(service_s / load, n))
    outcome = Cluster.of([engine], plain(arrived.tolist(), [10] * n, [1] * n)).replay(make_policy("random"))
    waited_s = outcome.ttft_ms.mean() / 1e3 - service_s
    assert waited_s == pytest.approx(load * service_s / (2 * (1 - load)), rel=0.03)


def test_one_server_with_exponential_work_waits_as_m_m_1(plain: Callable[..., Workload]) -> None:
    n, load, service_s = 300_000, 0.7, 0.01
    rng = np.random.default_rng(5)
    engine = EngineModel(
        prefill_base_ms=0, prompt_token_ms=1e-4, attention_ms=0, max_sequences=1, prefix_caching=False,
        kv_capacity_tokens=10**8, max_batched_tokens=10**8,
    )  # fmt: skip
    prompt = np.maximum(rng.exponential(service_s * 1e7, n), 1).astype(int)
    arrived = np.cumsum(rng.exponential(service_s / load, n))
    outcome = Cluster.of([engine], plain(arrived.tolist(), prompt.tolist(), [1] * n)).replay(make_policy("random"))
    assert outcome.ttft_ms.mean() / 1e3 == pytest.approx(service_s / (1 - load), rel=0.03)


@pytest.mark.parametrize("capacity", [12_000, 420_000])
@pytest.mark.parametrize("policy", ["random", "least-request", "aibrix-prefix-cache"])
def test_nothing_is_lost_or_left_behind(busy: Workload, slow: EngineModel, policy: str, capacity: int) -> None:
    engine = replace(slow, kv_capacity_tokens=capacity)
    cluster = Cluster.of([engine] * 3, busy)
    state = new_state(cluster.engines, busy, cluster.tree, np.ones(len(busy)))
    chosen = make_policy(policy)
    rng = np.random.default_rng(0)
    run(state, chosen.rule, chosen.parameters(), np.zeros(0, int), rng.random(len(busy)), 1200.0, np.empty((0, 3, 10)))
    requests, instances, slots = (np.asarray(part) for part in (state.requests, state.instances, state.slots))
    assert (requests["finished_s"] >= requests["first_token_s"]).all()
    assert (requests["first_token_s"] > requests["arrived_at_s"]).all()
    assert (requests["cached_tokens"] < requests["prompt_tokens"]).all()
    for name in (
        "held_tokens",
        "inflight",
        "inflight_prefill",
        "prefill_tokens",
        "decoding",
        "waiting",
        "context_tokens",
    ):
        assert (instances[name] == 0).all(), name
    assert (slots["users"] == 0).all()
    assert slots["cached_tokens"].sum() == instances["idle_tokens"].sum()
    assert (instances["idle_tokens"] <= capacity).all()


def test_the_same_seed_gives_the_same_bytes(busy: Workload, slow: EngineModel) -> None:
    cluster = Cluster.of([replace(slow, noise_ratio=0.1)] * 3, busy)
    one, same, other = (cluster.replay(make_policy("random"), seed=seed) for seed in (1, 1, 2))
    assert one.ttft_ms.tobytes() == same.ttft_ms.tobytes()
    assert one.ttft_ms.tobytes() != other.ttft_ms.tobytes()


def test_an_instance_does_not_care_about_the_others(busy: Workload, slow: EngineModel) -> None:
    forced = np.arange(len(busy)) % 3
    together = Cluster.of([slow] * 3, busy).replay(forced=forced)
    swapped = Cluster.of([slow] * 3, busy).replay(forced=2 - forced)
    np.testing.assert_array_equal(together.ttft_ms, swapped.ttft_ms)


def test_a_slower_instance_is_slower(busy: Workload, slow: EngineModel) -> None:
    fast = EngineModel.preset("h100-llama-3.1-8b")
    outcome = Cluster.of([fast, slow], busy).replay(forced=np.arange(len(busy)) % 2)
    assert outcome.ttft_ms[0::2].mean() * 2 < outcome.ttft_ms[1::2].mean()


def test_a_request_that_can_never_fit_is_refused(plain: Callable[..., Workload]) -> None:
    engine = replace(EngineModel(), kv_capacity_tokens=1000)
    with pytest.raises(ConfigError, match="a request of 5010 tokens does not fit"):
        Cluster.of([engine], plain([0.0], [5000], [10]))


def test_an_engine_refuses_what_no_engine_can_be() -> None:
    with pytest.raises(ConfigError, match="prompt_token_ms is -1"):
        EngineModel(prompt_token_ms=-1)
    with pytest.raises(ConfigError, match=r"did you mean 'h100-llama-3.1-8b'"):
        EngineModel.preset("h100-llama-3.1")
