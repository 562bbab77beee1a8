"""The table of obp's multi-class example on scikit-learn's digits, from what obp itself logged and predicted."""

from __future__ import annotations

import numpy as np
import pytest

from peers.digits import PUBLISHED, relative_errors, rows_of, table, tuned_lambdas, values
from peers.golden_files import Golden, committed


@pytest.fixture(scope="module")
def golden() -> Golden:
    return committed("digits")


@pytest.fixture(scope="module")
def ours(golden: Golden) -> np.ndarray:
    return values(golden)


def test_every_value_of_every_run_is_obps(golden: Golden, ours: np.ndarray) -> None:
    assert golden["names"].tolist() == list(PUBLISHED)
    assert ours.shape == (30, 7)
    np.testing.assert_allclose(ours, golden["values"], rtol=0, atol=1e-9)


def test_every_cell_is_within_ten_percent_of_the_published_table(golden: Golden, ours: np.ndarray) -> None:
    published = np.array(list(PUBLISHED.values())).T
    np.testing.assert_allclose(table(relative_errors(ours, golden)), published, rtol=0.1)


@pytest.mark.parametrize("run", range(30))
def test_slope_picks_in_every_run_what_obp_picks_in_the_first_and_keeps(run: int, golden: Golden) -> None:
    assert tuned_lambdas(rows_of(golden, run)) == {name: golden[f"pick {name}"] for name in ("switch-dr", "dr-os")}
