from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestar.data.errors import ConfigError, DataError
from lodestar.pipeline.estimation.embedding import HIT_EDGES, QUEUE_EDGES, bucket_of, cells, quantile_edges

NAN = float("nan")


def test_buckets_of_the_queue_double() -> None:
    queue = np.array([0, 1, 2, 3, 4, 5, 8, 9, 64, 65, 1000, NAN])
    assert bucket_of(queue, QUEUE_EDGES).tolist() == [0, 1, 2, 3, 3, 4, 4, 5, 7, 8, 8, 9]


def test_no_hit_is_not_a_small_one() -> None:
    assert bucket_of(np.array([0.0, 0.001, 0.25, 0.26, 1.0, NAN]), HIT_EDGES).tolist() == [0, 1, 1, 2, 4, 5]


_HITS = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0, NAN]), st.floats(0, 1))
_QUEUES = st.one_of(st.sampled_from([0.0, 1.0, 4.0, NAN]), st.floats(0, 200))


@given(st.lists(st.tuples(_HITS, _QUEUES, st.integers(-1, 3)), min_size=2, max_size=30))
def test_two_candidates_share_a_cell_if_and_only_if_they_share_all_three_buckets(
    candidates: list[tuple[float, float, int]],
) -> None:
    hit, queue, hardware = (np.array(column) for column in zip(*candidates, strict=True))
    found = cells(hit, queue, hardware)
    expected = [
        (sum(h > e for e in HIT_EDGES) if h == h else "?", sum(q > e for e in QUEUE_EDGES) if q == q else "?", kind)
        for h, q, kind in candidates
    ]
    assert found.min() >= 0
    assert [[a == b for b in found] for a in found] == [[a == b for b in expected] for a in expected]


def test_cells_are_the_same_in_any_log() -> None:
    hit, queue, hardware = np.array([0.0, 0.9, NAN]), np.array([3.0, NAN, 0.0]), np.array([1, 0, -1])
    alone = [int(cells(hit[[i]], queue[[i]], hardware[[i]])[0]) for i in range(3)]
    assert cells(hit, queue, hardware).tolist() == alone


def test_quantile_edges_share_the_values_out() -> None:
    values = np.append(np.random.default_rng(0).exponential(size=1000), NAN)
    edges = quantile_edges(values, 4)
    assert np.bincount(bucket_of(values, edges)).tolist() == [250, 250, 250, 250, 1]


def test_values_that_are_mostly_one_leave_fewer_buckets() -> None:
    assert quantile_edges(np.array([0.0] * 9 + [5.0]), 4) == (0.0,)


@pytest.mark.parametrize(("values", "buckets"), [([1.0, 2.0], 1), ([NAN], 3)])
def test_quantiles_that_cannot_be_are_refused(values: list[float], buckets: int) -> None:
    with pytest.raises(ConfigError, match=f"{buckets} buckets of"):
        quantile_edges(np.array(values), buckets)


@pytest.mark.parametrize("edges", [(), (1.0, 1.0), (2.0, 1.0), (NAN,)])
def test_edges_that_do_not_rise_are_refused(edges: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="each above the one before"):
        bucket_of(np.zeros(2), edges)


def test_what_does_not_belong_together_is_named() -> None:
    with pytest.raises(DataError, match="2 hit ratios, 3 queues and 2 kinds of hardware"):
        cells(np.zeros(2), np.zeros(3))
    with pytest.raises(DataError, match="hardware -2 is no kind"):
        cells(np.zeros(2), np.zeros(2), np.array([0, -2]))
