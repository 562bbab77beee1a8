"""The engine against a step-by-step oracle, queueing theory and conservation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import factorial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestar.data.errors import ConfigError
from lodestar.data.log import Workload
from lodestar.models.engine import COEFFICIENTS, EngineModel
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.policy_names import make_policy
from oracles.step_by_step import serve

requests = st.lists(
    st.tuples(
        st.sampled_from([1e-4, 0.003, 0.05, 0.5]),  # since the one before
        st.integers(1, 3000),  # prompt
        st.integers(1, 60),  # output
        st.integers(0, 5),  # group that shares a prefix
        st.integers(0, 2),  # priority
        st.sampled_from([np.inf, np.inf, 0.05, 0.7]),  # patience
    ),
    min_size=1,
    max_size=40,
)
engines = st.builds(
    EngineModel,
    kv_capacity_tokens=st.sampled_from([3200, 4096, 6000, 9000, 400_000]),
    max_sequences=st.sampled_from([2, 8, 256]),
    max_batched_tokens=st.sampled_from([256, 2048]),
    block_tokens=st.sampled_from([1, 16, 48]),
    prefix_caching=st.booleans(),
    chunked_prefill=st.booleans(),
    scheduling=st.sampled_from(["fcfs", "priority"]),
    request_overhead_ms=st.sampled_from([0.0, 7.0]),
    response_overhead_ms=st.sampled_from([0.0, 3.0]),
)


def in_groups(made: list[tuple[float, int, int, int, int, float]], block_tokens: int = 32) -> Workload:
    """Make a workload in which group g shares its first 7·g blocks, and its first two members all of the shorter."""
    gap, prompt, output, group, priority, patience = (np.array(column) for column in zip(*made, strict=True))
    blocks, seen = [], dict.fromkeys(range(6), 0)
    for i, (p, g) in enumerate(zip(prompt, group, strict=True)):
        whole = p // block_tokens
        shared = min(whole if seen[g] < 2 else 7 * g, whole)
        seen[g] += 1
        blocks.append([(g, k) if k < shared else (g, k, i) for k in range(whole)])
    number: dict[tuple[int, ...], int] = {}
    ids = np.array([number.setdefault(key, len(number)) for row in blocks for key in row], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in blocks])]).astype(np.int64)
    return Workload(np.cumsum(gap), prompt, output, ids, offsets, block_tokens, priority, patience)


@settings(max_examples=300, deadline=None)
@given(made=requests, engine=engines)
def test_strides_give_what_single_steps_of_real_blocks_give(
    made: list[tuple[float, int, int, int, int, float]], engine: EngineModel
) -> None:
    workload = in_groups(made)
    outcome = Cluster.of([engine], workload).replay(make_policy("random"))
    jobs = serve(engine, workload)
    assert outcome.status.tolist() == [job.status for job in jobs]
    assert outcome.preemptions.tolist() == [job.preemptions for job in jobs]
    assert outcome.cached_tokens.tolist() == [max(job.cached, 0) for job in jobs]
    first, finished = (np.array([getattr(job, name) for job in jobs]) for name in ("first", "finished"))
    np.testing.assert_allclose(outcome.ttft_ms, (first - workload.arrived_at_s) * 1e3, rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(outcome.e2e_ms, (finished - workload.arrived_at_s) * 1e3, rtol=1e-9, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(made=requests, engine=engines)
def test_strides_and_single_steps_agree_to_the_last_bit(
    made: list[tuple[float, int, int, int, int, float]], engine: EngineModel
) -> None:
    cluster = Cluster.of([engine] * 2, in_groups([row for row in made for _ in range(2)]))
    policy = make_policy("aibrix-prefix-cache")
    strides, steps = (cluster.replay(policy, record=True, single_steps=single) for single in (False, True))
    for name in ("instance", "ttft_ms", "e2e_ms", "cached_tokens", "preemptions", "status", "snapshots"):
        assert getattr(strides, name).tobytes() == getattr(steps, name).tobytes(), name


def one_at_a_time(**step: float) -> EngineModel:
    """Return an engine that serves one request at a time, without a cache and with nothing to pay but `step`."""
    free = dict.fromkeys(COEFFICIENTS, 0.0)
    return EngineModel(
        **(free | step),
        max_sequences=1,
        prefix_caching=False,
        kv_capacity_tokens=10**8,
        max_batched_tokens=10**8,
        block_tokens=10**5,
    )


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_one_server_with_even_work_waits_as_m_d_1(plain: Callable[..., Workload], load: float) -> None:
    n, service_s = 400_000, 0.01
    arrived = np.cumsum(np.random.default_rng(3).exponential(service_s / load, n))
    engine = one_at_a_time(prefill_base_ms=service_s * 1e3)
    outcome = Cluster.of([engine], plain(arrived.tolist(), [10] * n, [1] * n)).replay()
    assert outcome.queue_ms.mean() / 1e3 == pytest.approx(load * service_s / (2 * (1 - load)), rel=0.02)


@pytest.mark.slow
def test_one_server_with_exponential_work_waits_as_m_m_1(plain: Callable[..., Workload]) -> None:
    n, load, service_s = 1_500_000, 0.7, 0.01
    rng = np.random.default_rng(5)
    prompt = np.maximum(rng.exponential(service_s * 1e6, n), 1).astype(int)
    arrived = np.cumsum(rng.exponential(service_s / load, n))
    engine = one_at_a_time(prompt_token_ms=1e-3)
    outcome = Cluster.of([engine], plain(arrived.tolist(), prompt.tolist(), [1] * n)).replay()
    assert outcome.queue_ms.mean() / 1e3 == pytest.approx(load * service_s / (1 - load), rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("servers", [2, 4])
def test_a_batch_of_c_waits_as_m_m_c(plain: Callable[..., Workload], servers: int) -> None:
    """A step takes the same time whatever is in it: then c places serve independently, a token a step."""
    n, load, step_s, tokens = 1_000_000, 0.75, 1e-3, 200
    rng = np.random.default_rng(7)
    output = np.maximum(rng.exponential(tokens, n).round(), 1).astype(int)
    arrived = np.cumsum(rng.exponential(step_s * tokens / (servers * load), n))
    engine = replace(one_at_a_time(decode_base_ms=1e3 * step_s, prefill_base_ms=1e3 * step_s), max_sequences=servers)
    outcome = Cluster.of([engine], plain(arrived.tolist(), [1] * n, output.tolist())).replay()
    offered = servers * load
    empty = sum(offered**k / factorial(k) for k in range(servers))
    full = offered**servers / factorial(servers) / (1 - load)
    waits_s = full / (empty + full) * step_s * tokens / (servers * (1 - load))
    assert outcome.queue_ms.mean() / 1e3 == pytest.approx(waits_s, rel=0.02)


@pytest.mark.parametrize("capacity", [12_000, 420_000])
@pytest.mark.parametrize("policy", ["random", "least-request", "aibrix-prefix-cache"])
def test_nothing_is_lost_or_left_behind(busy: Workload, slow: EngineModel, policy: str, capacity: int) -> None:
    engine = replace(slow, kv_capacity_tokens=capacity)
    cluster = Cluster.of([engine] * 3, busy)
    state, _ = cluster.final_state(make_policy(policy), None, 0)
    requests, instances, slots = (np.asarray(part) for part in (state.requests, state.instances, state.slots))
    assert (requests["finished_s"] >= requests["first_token_s"]).all()
    assert (requests["first_token_s"] > requests["arrived_at_s"]).all()
    assert (requests["cached_tokens"] < requests["prompt_tokens"]).all()
    for name in (
        "held_blocks",
        "inflight",
        "inflight_prefill",
        "prefill_tokens",
        "decoding",
        "waiting",
        "context_tokens",
    ):
        assert (instances[name] == 0).all(), name
    assert (slots["users"] == 0).all()
    assert slots["cached_blocks"].sum() == instances["idle_blocks"].sum()
    assert (instances["idle_blocks"] <= capacity // 16).all()
    assert (np.asarray(state.block_phase) == 0).all()


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
