from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from lodestar.data.log import RequestLog, Workload
from lodestar.data.reconstruction.counters import INFERABLE, drifting
from lodestar.data.reconstruction.reconstruct import complete_snapshot, workload_of


def timeline() -> tuple[RequestLog, Workload]:
    """Three requests on pod-0 at 0, 1 and 2 s: first token after 1.5 s, then one token every 0.5 s, three in all."""
    n, m = 3, 2
    unknown = np.full((n, m), np.nan)
    log = RequestLog(
        dataset="line",
        instances=["pod-0", "pod-1"],
        request_id=["a", "b", "c"],
        arrived_at_s=np.array([0.0, 1.0, 2.0]),
        prompt_tokens=np.array([100, 200, 300]),
        output_tokens=np.array([3, 3, 3]),
        chosen=np.zeros(n, dtype=np.int64),
        propensity=np.full(n, np.nan),
        policy=None,
        candidate=np.ones((n, m), dtype=np.bool_),
        snapshot={name: unknown.copy() for name in (*INFERABLE, "hit_ratio", "running_requests", "waiting_requests")},
        probability=unknown.copy(),
        ttft_ms=np.full(n, 1500.0),
        tpot_ms=np.full(n, 500.0),
        e2e_ms=np.full(n, 2500.0),
        block_ids=np.zeros(0, dtype=np.int64),
        block_offsets=np.zeros(n + 1, dtype=np.int64),
        block_tokens=None,
    )
    workload = Workload(log.arrived_at_s, log.prompt_tokens, log.output_tokens, log.block_ids, log.block_offsets, 16)
    return log, workload


def test_counters_are_what_earlier_requests_had_shown() -> None:
    snapshot, notes = complete_snapshot(*timeline())
    pod_0 = {name: snapshot[name][:, 0].tolist() for name in INFERABLE}
    assert pod_0 == {
        "inflight_requests": [0, 1, 2],
        "inflight_prefill_requests": [0, 1, 1],
        "inflight_decode_requests": [0, 0, 1],
        "prefill_tokens": [0, 100, 200],
        "decode_tokens": [0, 0, 2],
    }
    assert all((snapshot[name][:, 1] == 0).all() for name in INFERABLE)
    assert set(notes) == set(INFERABLE)


def test_later_requests_and_own_outcome_change_nothing() -> None:
    log, workload = timeline()
    before, _ = complete_snapshot(log, workload)
    ttft_ms = log.ttft_ms.copy()
    ttft_ms[2] = 9.0
    after, _ = complete_snapshot(dataclasses.replace(log, ttft_ms=ttft_ms), workload)
    assert all(np.array_equal(before[name], after[name], equal_nan=True) for name in before)


def test_what_requests_cannot_tell_stays_unknown() -> None:
    snapshot, _ = complete_snapshot(*timeline())
    assert np.isnan(snapshot["hit_ratio"]).all()
    assert np.isnan(snapshot["running_requests"]).all()


@pytest.mark.parametrize(
    ("name", "drifted"),
    [
        ("sharing09-random", {"decode_tokens"}),
        ("sharing09-rl", {"prefill_tokens", "decode_tokens"}),
        ("klog-rl", {"prefill_tokens", "decode_tokens"}),
        ("klog-2026", set()),
    ],
)
def test_counters_that_drift_are_found(name: str, drifted: set[str], real_log: Callable[[str], RequestLog]) -> None:
    log = real_log(name)
    assert {field for field in INFERABLE if drifting(log, field)} == drifted


def test_inferred_counts_agree_with_logged_ones(real_log: Callable[[str], RequestLog]) -> None:
    log = real_log("sharing09-random")
    logged = log.snapshot["inflight_requests"]
    without = dataclasses.replace(log, snapshot={**log.snapshot, "inflight_requests": np.full_like(logged, np.nan)})
    inferred, notes = complete_snapshot(without, workload_of(log))
    assert np.corrcoef(inferred["inflight_requests"].ravel(), logged.ravel())[0, 1] > 0.99
    assert notes["inflight_requests"].method.startswith("missing on 100% of candidates")


def test_trusted_counters_are_left_alone(real_log: Callable[[str], RequestLog]) -> None:
    log = real_log("klog-2026")
    snapshot, notes = complete_snapshot(log, workload_of(log))
    assert notes == {}
    assert all(np.array_equal(snapshot[name], log.snapshot[name], equal_nan=True) for name in snapshot)


def test_a_request_without_ttft_is_in_flight_in_no_phase() -> None:
    log, workload = timeline()
    snapshot, _ = complete_snapshot(dataclasses.replace(log, ttft_ms=np.array([np.nan, 1500.0, 1500.0])), workload)
    assert snapshot["inflight_requests"][:, 0].tolist() == [0, 1, 2]
    assert snapshot["inflight_prefill_requests"][:, 0].tolist() == [0, 0, 1]
    assert snapshot["decode_tokens"][:, 0].tolist() == [0, 0, 0]


def test_requests_that_cannot_be_followed_are_counted_in_the_note() -> None:
    log, workload = timeline()
    lost = np.array([np.nan, 1500.0, 1500.0])
    failed = dataclasses.replace(log, ttft_ms=lost, e2e_ms=lost)
    snapshot, notes = complete_snapshot(failed, workload)
    assert snapshot["inflight_requests"][:, 0].tolist() == [0, 0, 1]
    assert notes["inflight_requests"].note == (
        "1 requests without latencies (failed, cancelled or not logged) are in no count"
    )
    assert complete_snapshot(log, workload)[1]["inflight_requests"].note == ""


def test_the_figure_of_a_rebuilt_counter_is_how_the_in_flight_counts_come_out(
    real_log: Callable[[str], RequestLog],
) -> None:
    log = real_log("sharing09-random")
    found = complete_snapshot(log, workload_of(log))[1]["decode_tokens"]
    assert found.quality_name == "correlation of the in-flight counts rebuilt likewise with the logged ones"
    assert found.quality is not None
    assert found.quality > 0.99
