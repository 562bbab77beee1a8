from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from lodestar.data.arrivals import infer_arrivals, inflight_at_arrival
from lodestar.data.errors import DataError
from lodestar.data.log import Floats, RequestLog
from lodestar.data.reconstruct import workload_of

ARMS = ("sharing09-random", "sharing09-prefix", "sharing09-rl")


def arrivals_of_another_arm(log: RequestLog, klog: RequestLog) -> Floats:
    """The truth: the klog of an arm that got the same requests at the same times."""
    known = dict(zip(klog.request_id, klog.arrived_at_s, strict=True))
    return np.array([known.get(request, np.nan) for request in log.request_id])


@pytest.mark.parametrize(("arm", "klog"), zip(ARMS, ("klog-rl", "klog-prefix", "klog-rl"), strict=True))
def test_inferred_arrivals_agree_with_the_logged_ones(
    arm: str, klog: str, real_log: Callable[[str], RequestLog]
) -> None:
    log = real_log(arm)
    truth, inferred = arrivals_of_another_arm(log, real_log(klog)), workload_of(log).arrived_at_s
    known = ~np.isnan(truth)
    rate_error = np.ptp(truth[known]) / np.ptp(inferred[known]) - 1
    assert abs(rate_error) < 0.02
    assert (inferred - truth)[known].std() < (1.5 if arm == "sharing09-random" else 1.9)
    totals = log.snapshot["inflight_requests"].sum(axis=1)
    assert np.corrcoef(inflight_at_arrival(inferred, log.e2e_ms / 1e3), totals)[0, 1] > 0.99


def test_inferred_gaps_vary_as_much_as_the_true_ones(real_log: Callable[[str], RequestLog]) -> None:
    gaps = np.diff(workload_of(real_log("sharing09-random")).arrived_at_s)
    assert gaps.min() >= 0
    assert gaps.std() / gaps.mean() == pytest.approx(1.04, abs=0.15)


def test_arrivals_of_a_simulated_queue_are_found() -> None:
    rng = np.random.default_rng(1)
    truth = np.cumsum(rng.exponential(0.1, 2000))
    e2e_s = rng.uniform(2, 6, 2000)
    inferred = infer_arrivals(e2e_s, inflight_at_arrival(truth, e2e_s).astype(np.float64))
    assert np.ptp(truth) / np.ptp(inferred) == pytest.approx(1, abs=0.02)
    assert (inferred - truth).std() < 1


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
