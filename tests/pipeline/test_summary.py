from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lodestar.data.errors import ConfigError
from lodestar.data.log import Workload
from lodestar.data.workloads.sharing import sharing_workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.cluster import Cluster, Outcome
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.state import CANCELLED, LOST
from lodestar.pipeline.replay.summary import LATENCIES, Slo, summary

Outcomes = dict[str, list[Outcome]]


@pytest.fixture
def outcomes(busy: Workload, slow: EngineModel) -> Outcomes:
    """Three policies, three seeds each; none is overloaded."""
    cluster = Cluster.of([slow] * 4, busy)
    names = ("random", "least-request", "aibrix-prefix-cache")
    return {name: [cluster.replay(make_policy(name), seed=seed) for seed in range(3)] for name in names}


def row(document: dict[str, Any], policy: str) -> dict[str, Any]:
    return next(found for found in document["policies"] if found["policy"] == policy)


def slower(run: Outcome, factor: float | np.ndarray) -> Outcome:
    return replace(run, ttft_ms=run.ttft_ms * factor, e2e_ms=run.e2e_ms * factor)


def ended(run: Outcome, requests: slice, status: int) -> Outcome:
    """The same run, but for some requests that got no answer."""
    nowhere = {}
    for name in ("ttft_ms", "tpot_ms", "e2e_ms"):
        nowhere[name] = getattr(run, name).copy()
        nowhere[name][requests] = np.nan
    statuses = np.zeros(len(run.ttft_ms), dtype=np.int8)
    statuses[requests] = status
    return replace(run, **nowhere, status=statuses)


def test_every_policy_and_seed_leaves_out_the_same_warm_up(busy: Workload, outcomes: Outcomes) -> None:
    found = summary(outcomes, busy, "random", warmup_ratio=0.1)
    assert found["window"]["warmup_requests"] == 60
    assert found["window"]["requests"] == 540
    for name, runs in outcomes.items():
        expected = np.mean([run.ttft_ms[60:] for run in runs])
        assert row(found, name)["ttft_ms"]["mean"] == pytest.approx(expected)
    assert found["window"]["from_s"] == busy.arrived_at_s[60]


def test_what_happens_in_the_warm_up_changes_no_number(busy: Workload, outcomes: Outcomes) -> None:
    early = np.where(np.arange(600) < 30, 9.0, 1.0)
    changed = {name: [replace(run, ttft_ms=run.ttft_ms * early) for run in runs] for name, runs in outcomes.items()}
    assert summary(changed, busy, "random") == summary(outcomes, busy, "random")


def test_the_order_of_the_policies_changes_the_order_of_the_rows_alone(busy: Workload, outcomes: Outcomes) -> None:
    there = summary(outcomes, busy, "random", seed=3)
    back = summary(dict(reversed(outcomes.items())), busy, "random", seed=3)
    assert back["policies"] == there["policies"][::-1]
    assert [found["first_by_ttft_p99"] for found in back["ranks"]] == [
        found["first_by_ttft_p99"] for found in there["ranks"]
    ][::-1]


def test_the_same_seed_gives_the_same_document_and_another_seed_other_intervals(
    busy: Workload, outcomes: Outcomes
) -> None:
    first, again, other = (summary(outcomes, busy, "random", seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert row(first, "random")["ttft_ms"]["ci95"] != row(other, "random")["ttft_ms"]["ci95"]
    assert row(first, "random")["ttft_ms"]["mean"] == row(other, "random")["ttft_ms"]["mean"]
    json.dumps(first, allow_nan=False)


def test_a_policy_twice_as_slow_ranks_last_and_its_tail_differs_by_the_tail(busy: Workload, outcomes: Outcomes) -> None:
    runs = outcomes["random"]
    found = summary({"random": runs, "slower": [slower(run, 2.0) for run in runs]}, busy, "random")
    assert found["ranks"] == [
        {"policy": "random", "by_ttft_mean": [1.0, 0.0], "first_by_ttft_p99": 1.0},
        {"policy": "slower", "by_ttft_mean": [0.0, 1.0], "first_by_ttft_p99": 0.0},
    ]
    pooled = np.concatenate([run.ttft_ms[30:] for run in runs])
    difference = row(found, "slower")["difference"]["ttft_ms_p99"]
    assert difference["value"] == pytest.approx(np.quantile(pooled, 0.99, method="inverted_cdf"))
    assert difference["ci95"][0] > 0


def test_lost_and_cancelled_requests_are_counted_missed_and_left_out_of_the_means(
    busy: Workload, outcomes: Outcomes
) -> None:
    runs = outcomes["random"]
    lossy = [ended(run, slice(100, 157), LOST) for run in runs]
    generous = Slo(ttft_ms=1e9, tpot_ms=1e9)
    found = row(summary({"random": runs, "lossy": lossy}, busy, "random", generous), "lossy")
    assert (found["lost_ratio"], found["cancelled_ratio"]) == (57 / 570, 0.0)
    assert found["slo_attainment"] == pytest.approx(1 - 57 / 570)
    kept = np.r_[30:100, 157:600]
    assert found["ttft_ms"]["mean"] == pytest.approx(np.mean([run.ttft_ms[kept] for run in runs]))
    assert found["difference"]["ttft_ms"] == {"mean": 0.0, "ci95": [0.0, 0.0]}
    assert found["flags"] == ["10.00 % of its requests were lost; its latencies are of the others"]


def test_a_policy_that_serves_nobody_has_no_numbers_and_no_rank(busy: Workload, outcomes: Outcomes) -> None:
    runs = outcomes["random"]
    nobody = [ended(run, slice(None), CANCELLED) for run in runs]
    found = summary({"random": runs, "nobody": nobody}, busy, "random")
    assert found["ranks"] == []
    assert row(found, "nobody")["ttft_ms"] == dict.fromkeys(("mean", "p50", "p90", "p99", "ci95"))
    assert row(found, "nobody")["difference"]["ttft_ms"] == {"mean": None, "ci95": None}
    assert row(found, "nobody")["cancelled_ratio"] + row(found, "nobody")["lost_ratio"] == 1.0
    json.dumps(found, allow_nan=False)


def test_an_overloaded_cluster_is_flagged_with_the_growth_of_its_queue(slow: EngineModel) -> None:
    busy = sharing_workload(requests=1500, rate_per_s=60.0, sharing_ratio=0.5, seed=1, prompt_tokens=(500, 1000, 2000))
    cluster = Cluster.of([slow], busy)
    found = summary({"random": [cluster.replay(make_policy("random"), seed=s) for s in range(2)]}, busy, "random")
    assert found["policies"][0]["unstable"]
    assert found["policies"][0]["queue_growth"]["growing_seeds"] == 2
    assert found["policies"][0]["flags"][0].startswith("unstable: the queue grows by ")
    assert found["ranks"] == []


def test_a_policy_that_depends_on_its_path_is_flagged_with_its_range(busy: Workload, outcomes: Outcomes) -> None:
    runs = outcomes["random"]
    spread = [slower(run, factor) for run, factor in zip(runs, (1.0, 1.5, 4.0), strict=True)]
    found = summary({"random": runs, "bistable": spread}, busy, "random")
    assert row(found, "random")["flags"] == []
    bistable, means = row(found, "bistable"), sorted(run.ttft_ms[30:].mean() for run in spread)
    assert bistable["path_dependent"]
    assert bistable["over_seeds"]["ttft_ms"] == pytest.approx(dict(zip(("min", "median", "max"), means, strict=True)))
    assert bistable["flags"][0].startswith(f"depends on its path: mean TTFT is {means[0]:,.0f} to {means[2]:,.0f} ms")


def test_one_seed_has_neither_spread_nor_intervals_nor_ranks_and_says_so(busy: Workload, outcomes: Outcomes) -> None:
    found = summary({name: runs[:1] for name, runs in outcomes.items()}, busy, "random")
    for each in found["policies"]:
        assert each["spread_over_seeds"] is None
        assert [each[latency]["ci95"] for latency in LATENCIES] == [None, None, None]
        assert each["ttft_ms"]["mean"] > 0
    difference = found["policies"][1]["difference"]
    assert difference["ttft_ms"]["ci95"] is difference["ttft_ms_p99"]["ci95"] is None
    assert difference["ttft_ms"]["mean"] != 0
    assert found["ranks"] == []
    assert found["intervals"]["how"].startswith("no intervals and no ranks: one seed does not tell how far off")
    assert "take --seeds 10 or more" in found["intervals"]["how"]


def test_a_few_seeds_that_differ_much_widen_no_latency_below_0(busy: Workload, outcomes: Outcomes) -> None:
    runs = [slower(run, factor) for run, factor in zip(outcomes["random"], (1.0, 3.0), strict=False)]
    found = summary({"random": runs}, busy, "random")["policies"][0]
    assert found["ttft_ms"]["ci95"][0] == 0.0
    assert found["ttft_ms"]["ci95"][1] > 4 * found["ttft_ms"]["mean"]


def test_a_few_seeds_say_that_they_are_few(busy: Workload, outcomes: Outcomes) -> None:
    runs = outcomes["random"]
    assert (
        "; widened, as 3 seeds are few: --seeds 10 or more" in summary({"a": runs[:3]}, busy, "a")["intervals"]["how"]
    )
    assert "widened" not in summary({"a": runs[:1] * 10}, busy, "a")["intervals"]["how"]
    for seeds, told in ((3, True), (5, False)):
        several = {name: (each * 2)[:seeds] for name, each in outcomes.items()}
        how = summary(several, busy, "random")["intervals"]["how"]
        assert how.endswith("for all 2 policies at once" + ", but too seldom of fewer than 5 seeds" * told)


@pytest.mark.parametrize("requests", [1, 2, 19, 21])
def test_a_handful_of_requests_is_summed_up(slow: EngineModel, plain: Any, requests: int) -> None:
    workload = plain([float(i) for i in range(requests)], [100] * requests, [1] * requests)
    cluster = Cluster.of([slow] * 2, workload)
    runs = {name: [cluster.replay(make_policy(name), seed=s) for s in range(2)] for name in ("random", "least-request")}
    found = summary(runs, workload, "random")
    assert found["policies"][1]["ttft_ms"]["mean"] > 0
    assert found["policies"][1]["tpot_ms"]["mean"] is None
    assert found["policies"][1]["queue_growth"] is None
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("ratio", [-0.1, 1.0])
def test_a_warm_up_that_leaves_nothing_is_refused(busy: Workload, outcomes: Outcomes, ratio: float) -> None:
    with pytest.raises(ConfigError, match=rf"--warmup-ratio is {ratio}; expected 0 or more, below 1"):
        summary(outcomes, busy, "random", warmup_ratio=ratio)
