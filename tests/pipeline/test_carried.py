"""The uncertainty of the calibration widens the intervals of a replay by what it really adds."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest

from lodestar.data.log import Workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.carried import carry_calibration
from lodestar.pipeline.replay.cluster import Cluster, Outcome
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.summary import summary
from lodestar.pipeline.replay.window import window_of

NAMES = ("random", "least-request", "aibrix-prefix-cache")


def runs(cluster: Cluster, seeds: int) -> dict[str, list[Outcome]]:
    return {name: [cluster.replay(make_policy(name), seed=seed) for seed in range(seeds)] for name in NAMES}


def stretched(outcomes: dict[str, list[Outcome]], factors: list[float]) -> dict[str, list[Outcome]]:
    """The same runs on engines that are slower by a factor each, in every latency."""
    return {
        name: [replace(run, ttft_ms=f * run.ttft_ms, tpot_ms=f * run.tpot_ms, e2e_ms=f * run.e2e_ms)
               for run, f in zip(each, factors, strict=True)]
        for name, each in outcomes.items()
    }  # fmt: skip


def test_draws_that_agree_add_nothing_and_draws_that_differ_add_their_deviation(
    busy: Workload, slow: EngineModel
) -> None:
    outcomes = runs(Cluster.of([slow] * 4, busy), 4)
    before = summary(outcomes, busy, "random")["policies"]
    same, wider = copy.deepcopy(before), copy.deepcopy(before)
    carry_calibration(same, outcomes, outcomes, window_of(busy))
    factors = [0.8, 0.9, 1.1, 1.2]
    carry_calibration(wider, outcomes, stretched(outcomes, factors), window_of(busy))
    for old, kept, row in zip(before, same, wider, strict=True):
        assert kept["ttft_ms"]["ci95"] == pytest.approx(old["ttft_ms"]["ci95"])
        means = np.array([run.ttft_ms[30:].mean() for run in outcomes[row["policy"]]])
        sd = np.std(means * (np.array(factors) - 1), ddof=1)
        assert row["calibration_sd"]["ttft_ms"] == pytest.approx(sd)
        half = old["ttft_ms"]["mean"] - old["ttft_ms"]["ci95"][0]
        assert row["ttft_ms"]["mean"] - row["ttft_ms"]["ci95"][0] == pytest.approx(
            np.hypot(half, 3.182 * sd), rel=1e-3
        )  # t, of four draws


def test_what_moves_both_policies_alike_widens_their_difference_less(busy: Workload, slow: EngineModel) -> None:
    outcomes = runs(Cluster.of([slow] * 4, busy), 4)
    rows = summary(outcomes, busy, "random")["policies"]
    before = copy.deepcopy(rows)
    shifted = {
        name: [replace(run, ttft_ms=run.ttft_ms + shift) for run, shift in zip(each, (-50, -20, 30, 40), strict=True)]
        for name, each in outcomes.items()
    }
    carry_calibration(rows, outcomes, shifted, window_of(busy))
    assert rows[1]["calibration_sd"]["ttft_ms"] > 30
    assert rows[1]["difference"]["ttft_ms"]["ci95"] == pytest.approx(before[1]["difference"]["ttft_ms"]["ci95"])
