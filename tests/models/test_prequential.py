from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from lodestar.models.parameters import Parameters
from lodestar.models.refresh.batches import by_requests
from lodestar.models.refresh.prequential import STATIC, BatchScore, prequential
from lodestar.models.refresh.strategies import STRATEGIES
from lodestar.models.rows import Rows

SMALL = Parameters(rounds=20, min_data_in_leaf=20)
MakeRows = Callable[..., Rows]


@pytest.fixture(name="stream", scope="module")
def _stream(make_rows: MakeRows) -> Rows:
    """1200 rows that are twice as slow from the 600th on; each takes 2 s, in which 8 others come."""
    rows = make_rows(1200)
    return replace(rows, latency_ms=rows.latency_ms * np.where(rows.request_index >= 600, 2.0, 1.0))


def run(rows: Rows, strategy: str, every: int = 1) -> list[BatchScore]:
    first, rest = rows.only(rows.request_index < 300), rows.only(rows.request_index >= 300)
    return prequential(first, by_requests(rest, 150), "ttft_ms", strategy, SMALL, every=every)


def mean_ms(scores: list[BatchScore]) -> float:
    return float(np.mean([score.losses.mae_ms for score in scores]))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_after_a_shift_what_learns_does_better_than_what_does_not(stream: Rows, strategy: str) -> None:
    static, fresh = run(stream, STATIC), run(stream, strategy)
    assert [score.strategy for score in static] == [None] * 6
    assert fresh[0].losses == static[0].losses
    assert mean_ms(fresh[3:]) < 0.7 * mean_ms(static[3:])
    after_shift = fresh[3]
    assert after_shift.before is not None
    assert after_shift.losses.mae_ms < after_shift.before.mae_ms


def test_a_batch_is_predicted_without_its_own_labels_and_without_later_ones(stream: Rows) -> None:
    changed = replace(stream, latency_ms=np.where(stream.request_index >= 750, 7.0, 1.0) * stream.latency_ms)
    for strategy in ("window", "continue"):
        some, others = run(stream, strategy)[:3], run(changed, strategy)[:3]
        assert [score.losses for score in some] == [score.losses for score in others]


def test_a_request_that_is_still_running_when_a_batch_begins_teaches_nothing(stream: Rows) -> None:
    running = (stream.request_index >= 593) & (stream.request_index < 600)  # the batch begins at the 600th
    changed = replace(stream, latency_ms=np.where(running, 50.0, 1.0) * stream.latency_ms)
    known, other = run(stream, "window"), run(changed, "window")
    assert known[2].losses.mae_ms == other[2].losses.mae_ms
    finished = (stream.request_index >= 583) & (stream.request_index < 590)
    changed = replace(stream, latency_ms=np.where(finished, 50.0, 1.0) * stream.latency_ms)
    assert known[2].losses.mae_ms != run(changed, "window")[2].losses.mae_ms


def test_learning_waits_for_as_many_rows_as_asked_for(stream: Rows) -> None:
    calm = stream.only(stream.request_index < 600)
    assert [score.strategy for score in run(calm, "continue", every=1)] == [None, "continue"]
    assert [score.strategy for score in run(calm, "continue", every=400)] == [None, None]
    assert [score.trees for score in run(calm, "continue", every=1)] == [20, 40]
