from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from lodestar.data.log import RequestLog
from lodestar.data.reconstruction.arrivals import inflight_by_instance
from lodestar.data.reconstruction.own import own_share, without_own
from lodestar.data.reconstruction.reconstruct import complete_snapshot, workload_of

REAL = [f"{load}-{arm}" for load in ("sharing09", "sharing47") for arm in ("random", "prefix", "rl")]


def busy_log(made_log: Callable[..., RequestLog], least_loaded: bool = False) -> RequestLog:
    """A log whose in-flight counts are read before each decision."""
    log = made_log(600, 4)
    e2e_s = log.e2e_ms / 1e3
    chosen = log.chosen.copy()
    if least_loaded:
        for i in range(len(log)):
            open_now = chosen[:i][(log.arrived_at_s + e2e_s)[:i] > log.arrived_at_s[i]]
            chosen[i] = np.bincount(open_now, minlength=4).argmin()
    counts = inflight_by_instance(log.arrived_at_s, e2e_s, chosen, 4)
    return dataclasses.replace(log, chosen=chosen, snapshot={**log.snapshot, "inflight_requests": counts})


def after_the_decision(log: RequestLog, name: str) -> RequestLog:
    own = log.prompt_tokens if name == "prefill_tokens" else np.ones(len(log))
    counts = np.nan_to_num(log.snapshot[name])
    counts[np.arange(len(log)), log.chosen] += own
    return dataclasses.replace(log, snapshot={**log.snapshot, name: counts})


@pytest.mark.parametrize("least_loaded", [False, True])
def test_counters_read_after_the_decision_are_found_and_put_right(
    least_loaded: bool, made_log: Callable[..., RequestLog]
) -> None:
    log = busy_log(made_log, least_loaded)
    snapshot, found = without_own(after_the_decision(log, "inflight_requests"))
    assert list(found) == ["inflight_requests"]
    assert "logged after the decision" in found["inflight_requests"].method
    assert np.array_equal(snapshot["inflight_requests"], log.snapshot["inflight_requests"])


@pytest.mark.parametrize("least_loaded", [False, True])
def test_counters_read_before_the_decision_are_left_alone(
    least_loaded: bool, made_log: Callable[..., RequestLog]
) -> None:
    log = busy_log(made_log, least_loaded)
    snapshot, found = without_own(log)
    assert found == {}
    assert np.array_equal(snapshot["inflight_requests"], log.snapshot["inflight_requests"])


@pytest.mark.parametrize("name", REAL)
def test_real_logs_are_told_apart_as_logged_and_as_if_logged_later(
    name: str, real_log: Callable[[str], RequestLog]
) -> None:
    log = real_log(name)
    assert without_own(log)[1] == {}
    later = after_the_decision(log, "inflight_requests")
    assert own_share(later, "inflight_requests").is_inside
    assert np.array_equal(without_own(later)[0]["inflight_requests"], log.snapshot["inflight_requests"])


def test_a_few_decisions_tell_nothing(real_log: Callable[[str], RequestLog]) -> None:
    assert without_own(real_log("klog-2026"))[1] == {}


def test_features_and_arrivals_use_what_was_known_before(real_log: Callable[[str], RequestLog]) -> None:
    log = real_log("sharing09-random")
    later = after_the_decision(log, "inflight_requests")
    workload = workload_of(later)
    assert np.array_equal(workload.arrived_at_s, workload_of(log).arrived_at_s)
    snapshot, found = complete_snapshot(later, workload)
    assert np.array_equal(snapshot["inflight_requests"], log.snapshot["inflight_requests"])
    assert found["inflight_requests"].quality == pytest.approx(1.46, abs=0.05)
