from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from lodestar.data.errors import DataError
from lodestar.data.log import RequestLog
from lodestar.features.definitions import FEATURES
from lodestar.models.fit import fit
from lodestar.models.parameters import Parameters
from lodestar.models.rows import Rows, derived_notes, rows_of

MakeRows = Callable[..., Rows]
SMALL = Parameters(rounds=10, min_data_in_leaf=10)


def test_a_request_unfinished_at_the_cut_is_in_neither_part(make_rows: MakeRows) -> None:
    rows = make_rows(100)  # one every 0.25 s, each takes 2 s
    training, later = rows.split(60)
    assert training.request_index.tolist() == list(range(53))  # the last that finished by 15 s arrived at 13 s
    assert later.request_index.tolist() == list(range(60, 100))


def test_shuffling_the_future_changes_nothing_that_was_learned_before_it(make_rows: MakeRows) -> None:
    rows, future = make_rows(200), np.arange(140, 200)
    shuffled = np.concatenate([np.arange(140), np.random.default_rng(0).permutation(future)])
    mixed = replace(rows, features=rows.features[shuffled], latency_ms=rows.latency_ms[shuffled])
    texts = [fit(each.split(140)[0], "ttft_ms", SMALL, seed=0)[0].text() for each in (rows, mixed)]
    assert texts[0] == texts[1]


def test_what_a_slow_request_took_is_not_known_before_it_ends(make_rows: MakeRows) -> None:
    rows = make_rows(200)
    rows.finished_at_s[100] = 1e9
    rows.latency_ms[100] = 1e9
    training, _ = rows.split(140)
    assert 100 not in training.request_index


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("chosen", -1, "no decision"),
        ("ttft_ms", np.nan, "no ttft_ms"),
        ("ttft_ms", 0.0, "no ttft_ms"),
        ("e2e_ms", np.nan, "no time of finish"),
    ],
)
def test_requests_without_a_label_are_counted_by_reason(
    make_log: Callable[..., RequestLog], field: str, value: float, reason: str
) -> None:
    log = make_log(30)
    if field == "e2e_ms":
        log.output_tokens[:] = -1  # it would tell E2E from TTFT and TPOT
    getattr(log, field)[[3, 4]] = value
    rows = rows_of(log, np.zeros((30, len(FEATURES))), log.arrived_at_s, "ttft_ms")
    assert len(rows) == 28
    assert {name: without.tolist() for name, without in rows.excluded.items() if len(without)} == {reason: [3, 4]}


def test_a_log_without_any_label_is_refused_with_the_reason(make_log: Callable[..., RequestLog]) -> None:
    log = make_log(30)
    log.e2e_ms[:] = np.nan
    log.tpot_ms[:] = np.nan
    with pytest.raises(DataError, match="30 with no time of finish"):
        rows_of(log, np.zeros((30, len(FEATURES))), log.arrived_at_s, "ttft_ms")


def test_a_finish_that_is_not_logged_is_derived_and_counted(make_log: Callable[..., RequestLog]) -> None:
    log = make_log(30)
    log.e2e_ms[3:] = np.nan
    rows = rows_of(log, np.zeros((30, len(FEATURES))), log.arrived_at_s, "ttft_ms")
    np.testing.assert_allclose(rows.finished_at_s, log.arrived_at_s + make_log(30).e2e_ms / 1000.0)
    assert derived_notes(log) == {
        "e2e_ms": "not logged for 27 of 30 requests: derived as TTFT + TPOT × (output tokens − 1) for 27 of them"
    }


def test_a_time_per_token_that_is_not_logged_is_derived_and_counted(make_log: Callable[..., RequestLog]) -> None:
    log = make_log(30)
    log.tpot_ms[:] = np.nan
    log.e2e_ms[0] = np.nan
    rows = rows_of(log, np.zeros((30, len(FEATURES))), log.arrived_at_s, "tpot_ms")
    assert rows.request_index.tolist() == list(range(1, 30))
    np.testing.assert_allclose(rows.latency_ms, make_log(30).tpot_ms[1:])
    assert derived_notes(log)["tpot_ms"] == (
        "not logged for 30 of 30 requests: derived as (E2E − TTFT) / (output tokens − 1) for 29 of them"
    )


@pytest.mark.parametrize(
    ("target", "labels", "censored"),
    [
        ("ttft_ms", [500.0, 70.0], [True, False]),
        ("tpot_ms", [9.0], [False]),
        ("e2e_ms", [500.0, 800.0], [True, True]),
    ],
)
def test_a_request_that_was_cut_off_bounds_its_latency_or_tells_it(
    make_log: Callable[..., RequestLog], target: str, labels: list[float], censored: list[bool]
) -> None:
    """Request 3 ended after 500 ms without a first token, request 4 after 800 ms with one."""
    log = make_log(30)
    cut = {name: np.full(30, np.nan) for name in ("ttft_ms", "tpot_ms", "e2e_ms")}
    cut["e2e_ms"][[3, 4]], cut["ttft_ms"][4], cut["tpot_ms"][4] = [500.0, 800.0], 70.0, 9.0
    for name in cut:
        getattr(log, name)[[3, 4]] = np.nan
    rows = rows_of(replace(log, cut_off=cut), np.zeros((30, len(FEATURES))), log.arrived_at_s, target)
    ended = np.isin(rows.request_index, [3, 4])
    assert rows.latency_ms[ended].tolist() == labels
    assert rows.censored[ended].tolist() == censored
    assert not rows.censored[~ended].any()
    assert (rows.finished_at_s - rows.arrived_at_s)[ended][-1] == pytest.approx(0.8)


def test_a_log_in_which_every_request_was_cut_off_trains_nothing(make_log: Callable[..., RequestLog]) -> None:
    log = make_log(30)
    ended_ms = np.full(30, 400.0)
    for name in ("ttft_ms", "tpot_ms", "e2e_ms"):
        getattr(log, name)[:] = np.nan
    cut = {"e2e_ms": ended_ms, "ttft_ms": np.full(30, np.nan), "tpot_ms": np.full(30, np.nan)}
    with pytest.raises(DataError, match="30 cut off"):
        rows_of(replace(log, cut_off=cut), np.zeros((30, len(FEATURES))), log.arrived_at_s, "ttft_ms")
