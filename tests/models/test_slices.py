from __future__ import annotations

import numpy as np
import pytest

from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.slices import SLICES, load_slice


def _features(**columns: list[float]) -> np.ndarray:
    features = np.full((len(next(iter(columns.values()))), len(FEATURE_NAMES)), np.nan)
    for name, values in columns.items():
        features[:, FEATURE_NAMES.index(name)] = values
    return features


@pytest.mark.parametrize("column", ["waiting_requests", "queued_requests", "inflight_prefill_requests"])
def test_a_row_is_sliced_by_the_first_queue_that_the_log_tells_of(column: str) -> None:
    found = load_slice(_features(**{column: [0.0, 0.5, 1.0, 2.9, 3.0, 5.0, 6.0, 100.0]}))
    assert [SLICES[of] for of in found] == ["0", "0", "1-2", "1-2", "3-5", "3-5", "6+", "6+"]


def test_waiting_requests_count_before_queued_and_those_before_prefills() -> None:
    found = load_slice(
        _features(
            waiting_requests=[0.0, np.nan, np.nan],
            queued_requests=[9.0, 2.0, np.nan],
            inflight_prefill_requests=[9.0, 9.0, 4.0],
        )
    )
    assert [SLICES[of] for of in found] == ["0", "1-2", "3-5"]


def test_a_log_without_queues_is_unknown() -> None:
    assert [SLICES[of] for of in load_slice(_features(prompt_tokens=[100.0]))] == ["unknown"]
