from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.metrics import by_load
from lodestar.models.rivals import constant_rival, linear_rival
from lodestar.models.rows import Rows
from lodestar.models.slices import SLICES, load_slice


def test_linear_regression_finds_an_exact_law(make_rows: Callable[..., Rows]) -> None:
    rows, new = make_rows(200), make_rows(50, seed=1)
    law = np.linspace(1, 3, rows.features.shape[1])
    rows.latency_ms[:] = 7 + rows.features @ law
    assert linear_rival(rows, new.features) == pytest.approx(7 + new.features @ law)


def test_linear_regression_is_never_below_the_shortest_training_latency(make_rows: Callable[..., Rows]) -> None:
    rows = make_rows(200)
    assert linear_rival(rows, rows.features - 1e6).min() == rows.latency_ms.min()


def test_linear_regression_takes_a_missing_value_for_the_training_mean(make_rows: Callable[..., Rows]) -> None:
    rows = make_rows(200)
    rows.features[:, 9] = np.nan  # never known: left out
    missing, mean = rows.features[:1].copy(), rows.features[:1].copy()
    missing[0, 3], mean[0, 3] = np.nan, rows.features[:, 3].mean()
    assert linear_rival(rows, missing) == pytest.approx(linear_rival(rows, mean))


def test_the_constant_is_the_median(make_rows: Callable[..., Rows]) -> None:
    rows = make_rows(201)
    assert constant_rival(rows, rows.features[:2]).tolist() == [float(np.median(rows.latency_ms))] * 2


def test_tables_by_load_have_the_slices_that_quantiles_are_calibrated_by() -> None:
    waiting = np.arange(12.0)
    features = np.full((12, len(FEATURE_NAMES)), np.nan)
    features[:, FEATURE_NAMES.index("waiting_requests")] = waiting
    expected = np.bincount(load_slice(features))
    lines = by_load(np.full(12, 100.0), {"model": np.full(12, 90.0)}, waiting)
    assert [line["waiting_requests"] for line in lines] == list(SLICES[:4])
    assert [line["rows"] for line in lines] == expected.tolist()


def test_every_row_with_a_waiting_count_is_in_one_slice() -> None:
    waiting = np.array([0, 1, 2, 3, 5, 6, 40, np.nan])
    lines = by_load(np.full(8, 100.0), {"model": np.full(8, 90.0)}, waiting)
    assert [(line["waiting_requests"], line["rows"]) for line in lines] == [("0", 1), ("1-2", 2), ("3-5", 2), ("6+", 2)]
