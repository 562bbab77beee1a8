"""The gate on the SLO beside the one-step differences: whether a policy surely misses it less than the baseline."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.one_step import OneStepInput
from lodestar.pipeline.replay.estimates.differences import one_step_differences

N = 3000


def verdicts(missed: tuple[float, float], slo_ms: float | None = 500.0) -> dict[str, str]:
    """What a fair coin between two instances, the baseline, is to those that always take the first or the second.

    An instance misses the SLO at a share of `missed`.
    """
    random = np.random.default_rng(0)
    took = random.integers(0, 2, N)
    cost = np.where(random.random(N) < np.array(missed)[took], 900.0, 100.0)
    log = LoggedDecisions(cost, 2 * np.arange(N + 1), 2 * np.arange(N) + took, np.full(N, 0.5))
    base = OneStepInput(log, np.full(2 * N, 0.5), np.full(2 * N, 300.0))
    scored = {
        "coin": base,
        "first": replace(base, target=np.tile([1.0, 0.0], N)),
        "second": replace(base, target=np.tile([0.0, 1.0], N)),
    }
    rows, notes = one_step_differences(scored, "coin", slo_ms, seed=0)
    assert not notes
    return {row["policy"]: row["slo_gate"]["verdict"] for row in rows if "slo_gate" in row}


@pytest.mark.parametrize(
    ("missed", "first", "second"),
    [((0.1, 0.5), "below", "above"), ((0.5, 0.1), "above", "below"), ((0.3, 0.3), "open", "open")],
)
def test_a_policy_that_misses_less_is_below_one_that_misses_more_above(
    missed: tuple[float, float], first: str, second: str
) -> None:
    assert verdicts(missed) == {"first": first, "second": second}


def test_without_an_slo_there_is_no_gate_and_a_limit_that_all_miss_decides_nothing() -> None:
    assert verdicts((0.1, 0.5), None) == {}
    assert set(verdicts((0.1, 0.5), 50.0).values()) == {"open"}
