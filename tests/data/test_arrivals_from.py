from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from lodestar.data.errors import DataError
from lodestar.data.log import RequestLog
from lodestar.data.reconstruction.arrivals_from import joined_arrivals
from lodestar.data.reconstruction.reconstruct import workload_of

MakeLog = Callable[..., RequestLog]


def without_times(log: RequestLog) -> RequestLog:
    return dataclasses.replace(log, dataset="untimed", arrived_at_s=np.full(len(log), np.nan))


def test_the_times_of_the_same_requests_are_taken_and_nothing_else(made_log: MakeLog) -> None:
    timed = made_log(50)
    log = dataclasses.replace(without_times(timed), ttft_ms=timed.ttft_ms * 2)
    found = joined_arrivals(log, timed)
    assert found.arrived_at_s == pytest.approx(timed.arrived_at_s)
    assert np.array_equal(found.ttft_ms, log.ttft_ms)
    assert "those of the same requests in made" in workload_of(found).inferred["arrivals"]


def test_rows_come_in_the_order_of_arrival_whole_and_how_often_that_is_another_is_said(made_log: MakeLog) -> None:
    timed = made_log(50)
    swapped = np.arange(50)
    swapped[[20, 21]] = [21, 20]
    other = dataclasses.replace(timed, arrived_at_s=timed.arrived_at_s[swapped])
    found = joined_arrivals(without_times(timed), other)
    assert found.request_id == [timed.request_id[i] for i in swapped]
    for field in ("chosen", "ttft_ms", "candidate"):
        assert np.array_equal(getattr(found, field), getattr(timed, field)[swapped])
    assert np.array_equal(found.snapshot["hit_ratio"], timed.snapshot["hit_ratio"][swapped])
    assert timed.session is not None
    assert found.session is not None
    assert np.array_equal(found.session[:20], timed.session[:20])
    assert found.session[20] == timed.session[21] or timed.session[21] > timed.session[:20].max()
    for row, before in enumerate(swapped):
        assert np.array_equal(blocks(found, row), blocks(timed, before))
    assert "1 of 50 arrived there before the one dispatched before them here" in found.found[0].note


def blocks(log: RequestLog, row: int) -> np.ndarray:
    return log.block_ids[log.block_offsets[row] : log.block_offsets[row + 1]]


def test_a_request_without_a_time_arrives_between_its_neighbours_and_is_counted(made_log: MakeLog) -> None:
    timed = made_log(50)
    other = dataclasses.replace(timed, request_id=[*timed.request_id[:30], "another", *timed.request_id[31:]])
    found = joined_arrivals(without_times(timed), other)
    assert found.arrived_at_s[30] == pytest.approx((timed.arrived_at_s[29] + timed.arrived_at_s[31]) / 2)
    assert "1 requests without a time there were put between their neighbours" in found.found[0].note


def test_the_same_id_with_another_prompt_is_another_request(made_log: MakeLog) -> None:
    timed = made_log(50)
    other = dataclasses.replace(timed, prompt_tokens=np.where(np.arange(50) == 30, 1, timed.prompt_tokens))
    assert "1 requests without a time" in joined_arrivals(without_times(timed), other).found[0].note


def test_other_traffic_and_another_order_are_refused(made_log: MakeLog) -> None:
    timed, log = made_log(50), without_times(made_log(50))
    with pytest.raises(DataError, match="0 of the 50 requests of untimed have an arrival time in it"):
        joined_arrivals(log, dataclasses.replace(timed, request_id=[f"x{i}" for i in range(50)]))
    with pytest.raises(DataError, match="its arrivals come in another order than untimed was dispatched in"):
        joined_arrivals(log, dataclasses.replace(timed, arrived_at_s=timed.arrived_at_s[::-1].copy()))


def test_a_log_with_times_of_its_own_needs_no_others(made_log: MakeLog) -> None:
    with pytest.raises(DataError, match="has arrival times of its own"):
        joined_arrivals(made_log(50), made_log(50))


@pytest.mark.parametrize("arm", ["klog-prefix", "klog-rl"])
def test_real_arms_share_their_arrivals(real_log: Callable[[str], RequestLog], arm: str) -> None:
    found = joined_arrivals(real_log("sharing09-random"), real_log(arm)).found[0]
    assert found.quality is not None
    assert found.quality > 0.995
