from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestar.data.errors import DataError
from lodestar.data.log import Floats, RequestLog
from lodestar.data.reconstruction.arrivals import infer_arrivals, inflight_at_arrival, inflight_by_instance
from lodestar.data.reconstruction.reconstruct import workload_of

ARMS = ("sharing09-random", "sharing09-prefix", "sharing09-rl")


def arrivals_of_another_arm(log: RequestLog, klog: RequestLog) -> Floats:
    """The truth: the klog of an arm that got the same requests at the same times."""
    known = dict(zip(klog.request_id, klog.arrived_at_s, strict=True))
    return np.array([known.get(request, np.nan) for request in log.request_id])


@pytest.mark.parametrize(
    ("arm", "klog", "most_s"), zip(ARMS, ("klog-rl", "klog-prefix", "klog-rl"), (0.3, 0.6, 0.4), strict=True)
)
def test_inferred_arrivals_agree_with_the_logged_ones(
    arm: str, klog: str, most_s: float, real_log: Callable[[str], RequestLog]
) -> None:
    log = real_log(arm)
    truth, inferred = arrivals_of_another_arm(log, real_log(klog)), workload_of(log).arrived_at_s
    known = ~np.isnan(truth)
    rate_error = np.ptp(truth[known]) / np.ptp(inferred[known]) - 1
    assert abs(rate_error) < 0.01
    assert (inferred - truth)[known].std() < most_s
    totals = log.snapshot["inflight_requests"].sum(axis=1)
    assert np.corrcoef(inflight_at_arrival(inferred, log.e2e_ms / 1e3), totals)[0, 1] > 0.99


@pytest.mark.parametrize("klog", ["klog-prefix", "klog-rl"])
def test_counts_on_each_instance_come_out_nearly_as_often_as_with_the_true_arrivals(
    klog: str, real_log: Callable[[str], RequestLog]
) -> None:
    log = real_log(klog)
    logged, e2e_s = log.snapshot["inflight_requests"], log.e2e_ms / 1e3
    withheld = dataclasses.replace(log, arrived_at_s=np.full(len(log), np.nan))
    inferred = workload_of(withheld).arrived_at_s
    assert (inferred - log.arrived_at_s).std() < 0.4
    exact = [
        np.mean(inflight_by_instance(arrived_at_s, e2e_s, log.chosen, logged.shape[1]) == logged)
        for arrived_at_s in (inferred, log.arrived_at_s)
    ]
    assert exact[0] > exact[1] - 0.03


def test_a_counter_that_lost_completions_is_said(real_log: Callable[[str], RequestLog]) -> None:
    found = {one.column: one for one in workload_of(real_log("sharing09-prefix")).found}["arrivals"]
    assert "the counter of pod_0004 reads up to 2 more than its requests explain in 7" in found.note
    assert found.quality is not None
    assert found.quality > 0.85


def test_inferred_gaps_vary_as_much_as_the_true_ones(real_log: Callable[[str], RequestLog]) -> None:
    gaps = np.diff(workload_of(real_log("sharing09-random")).arrived_at_s)
    assert gaps.min() >= 0
    assert gaps.std() / gaps.mean() == pytest.approx(1.04, abs=0.15)


@pytest.mark.parametrize("spread", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("instances", [1, 4, 40])
def test_arrivals_of_a_simulated_queue_are_found(spread: float, instances: int) -> None:
    rng = np.random.default_rng(1)
    truth = np.cumsum(rng.gamma(spread**-2, 0.1 * spread**2, 2000))
    e2e_s, chosen = rng.uniform(2, 6, 2000), rng.integers(0, instances, 2000)
    inferred = infer_arrivals(e2e_s, inflight_by_instance(truth, e2e_s, chosen, instances), chosen).arrived_at_s
    assert np.ptp(truth) / np.ptp(inferred) == pytest.approx(1, abs=0.015)
    assert (inferred - truth).std() < (0.2 if spread <= 1 else 0.8)


def test_unknown_counts_and_a_leak_are_borne() -> None:
    rng = np.random.default_rng(2)
    truth = np.cumsum(rng.exponential(0.1, 3000))
    e2e_s, chosen = rng.uniform(2, 6, 3000), rng.integers(0, 5, 3000)
    counts = inflight_by_instance(truth, e2e_s, chosen, 5)
    counts[1200:, 2] += 3
    counts[rng.random(counts.shape) < 0.3] = np.nan
    found = infer_arrivals(e2e_s, counts, chosen)
    assert (found.arrived_at_s - truth).std() < 0.3
    assert np.median(found.leaked[1400:], axis=0).tolist() == [0, 0, 3, 0, 0]
    assert np.median(found.leaked[:1000], axis=0).tolist() == [0, 0, 0, 0, 0]


@given(
    st.lists(
        st.tuples(
            st.floats(0, 1e4),
            st.integers(0, 2),
            st.lists(st.one_of(st.just(math.nan), st.integers(0, 50).map(float)), min_size=3, max_size=3),
        ),
        min_size=1,
        max_size=40,
    )
)
@settings(max_examples=100, deadline=None)
def test_whatever_the_counts_arrivals_are_finite_and_in_order(rows: list[tuple[float, int, list[float]]]) -> None:
    e2e_s, chosen, counts = (np.array(column) for column in zip(*rows, strict=True))
    found = infer_arrivals(e2e_s, counts, chosen)
    assert found.arrived_at_s[0] == 0
    assert np.isfinite(found.arrived_at_s).all()
    assert (np.diff(found.arrived_at_s) >= 0).all()


@pytest.mark.parametrize("requests", [1, 2, 3])
def test_a_handful_of_requests_arrive_in_order(requests: int) -> None:
    found = infer_arrivals(np.ones(requests), np.zeros((requests, 2)), np.zeros(requests, dtype=np.int64))
    assert found.arrived_at_s[0] == 0
    assert (np.diff(found.arrived_at_s) >= 0).all()


def test_logged_arrivals_are_used_from_zero(real_log: Callable[[str], RequestLog]) -> None:
    log = real_log("klog-rl")
    later = dataclasses.replace(log, arrived_at_s=log.arrived_at_s + 100)
    workload = workload_of(later)
    assert workload.arrived_at_s[0] == 0
    assert np.allclose(workload.arrived_at_s, log.arrived_at_s)
    assert "arrivals" not in workload.inferred


def test_without_arrivals_and_latencies_there_is_no_workload(real_log: Callable[[str], RequestLog]) -> None:
    log = real_log("sharing09-random")
    nothing = np.full(len(log), np.nan)
    with pytest.raises(DataError, match="no arrival times, and no latencies to infer them from"):
        workload_of(dataclasses.replace(log, e2e_ms=nothing, ttft_ms=nothing))


def test_without_arrivals_and_counts_there_is_no_workload(real_log: Callable[[str], RequestLog]) -> None:
    log = real_log("sharing09-random")
    with pytest.raises(DataError, match="no in-flight counts"):
        workload_of(
            dataclasses.replace(log, snapshot={name: np.full_like(x, np.nan) for name, x in log.snapshot.items()})
        )


def test_logged_blocks_become_dense_and_partial_ones_are_left_out(real_log: Callable[[str], RequestLog]) -> None:
    log = real_log("mooncake")
    workload = workload_of(log)
    assert workload.block_tokens == 512
    assert np.array_equal(np.diff(workload.block_offsets), log.prompt_tokens // 512)
    assert np.array_equal(np.unique(workload.block_ids), np.arange(workload.block_ids.max() + 1))


def test_conversations_of_a_log_are_those_of_its_workload(real_log: Callable[[str], RequestLog]) -> None:
    workload = workload_of(real_log("sessions"))
    assert workload.session is not None
    assert set(workload.session.tolist()) == {0}
    assert workload_of(real_log("azure")).session is None


def test_without_hits_and_blocks_nothing_is_shared(real_log: Callable[[str], RequestLog]) -> None:
    workload = workload_of(real_log("azure"))
    assert len(workload.block_ids) == 0
    assert "no request shares a prefix" in workload.inferred["blocks"]


def test_missing_output_tokens_are_inferred_and_said(real_log: Callable[[str], RequestLog]) -> None:
    log = real_log("sharing09-random")
    missing = np.where(np.arange(len(log)) % 2, log.output_tokens, -1)
    workload = workload_of(dataclasses.replace(log, output_tokens=missing))
    assert "1246 of 2491 not logged" in workload.inferred["output_tokens"]
    # TPOT is logged in whole milliseconds, so the count is not exact.
    assert np.median(np.abs(workload.output_tokens - log.output_tokens)) <= 1


def test_reconstruction_is_repeatable(real_log: Callable[[str], RequestLog]) -> None:
    one, two = workload_of(real_log("sharing47-random")), workload_of(real_log("sharing47-random"))
    assert one.arrived_at_s.tobytes() == two.arrived_at_s.tobytes()
    assert one.block_ids.tobytes() == two.block_ids.tobytes()
