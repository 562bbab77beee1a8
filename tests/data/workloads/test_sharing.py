from __future__ import annotations

import numpy as np
import pytest

from lodestar.data.errors import ConfigError
from lodestar.data.workloads.measure import shared_ratio
from lodestar.data.workloads.sharing import sharing_workload


def test_arrivals_are_poisson_at_the_rate_asked_for() -> None:
    gaps = np.diff(sharing_workload(20_000, 8, 0.1, seed=0, prompt_tokens=(100,)).arrived_at_s)
    assert 1 / gaps.mean() == pytest.approx(8, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(1, abs=0.03)


def test_ten_requests_share_each_prefix() -> None:
    workload = sharing_workload(1000, 8, 0.47, seed=0)
    assert set(np.bincount(workload.block_ids).tolist()) == {1, 10}
    assert shared_ratio(workload) == pytest.approx(0.47, abs=1e-3)


def test_outputs_lie_within_their_spread() -> None:
    output_tokens = sharing_workload(5000, 8, 0.1, seed=0).output_tokens
    assert (output_tokens.min(), output_tokens.max()) == (90, 110)


def test_nothing_shared_means_that_no_block_is_used_twice() -> None:
    assert np.bincount(sharing_workload(100, 8, 0.0, seed=0).block_ids).max() == 1


@pytest.mark.parametrize(
    "wrong",
    [{"requests": 0}, {"rate_per_s": 0.0}, {"sharing_ratio": 1.5}, {"prompt_tokens": ()}, {"output_tokens": 5}],
)
def test_unusable_values_are_named(wrong: dict[str, object]) -> None:
    settings = {"requests": 10, "rate_per_s": 1.0, "sharing_ratio": 0.5, "seed": 0, **wrong}
    with pytest.raises(ConfigError, match="usable; expected"):
        sharing_workload(**settings)  # type: ignore[arg-type]
