"""The leaderboard: every policy in every cell, none faster than an idle engine, and a page that says what they say."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from house import ROOT
from lodestar.data.log import Workload
from lodestar.data.workloads.sharing import sharing_workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.policies import POLICIES
from lodestar.pipeline.replay.routing.contract import spaces

DOCS = ROOT / "docs"
ENGINE = replace(EngineModel.preset("l40s-llama-3.1-8b"), noise_ratio=0.1)


@pytest.fixture(scope="module")
def docs() -> Iterator[Callable[[str], Any]]:
    """Import a script of the leaderboard as the command does, from the folder where it lies."""
    sys.path.insert(0, str(DOCS))
    yield importlib.import_module
    sys.path.remove(str(DOCS))


@pytest.fixture(scope="module")
def frame(docs: Callable[[str], Any]) -> pl.DataFrame:
    """Two tiny workloads on one fleet of two kinds of engine."""
    workloads = {
        f"sharing{sharing:.0%}": sharing_workload(240, 5.0, sharing, 1, prompt_tokens=(500, 1000))
        for sharing in (0.1, 0.7)
    }
    fleet = [ENGINE] * 2, [replace(ENGINE.slowed(1.5), prefix_caching=False, chunked_prefill=False)]
    cells = docs("leaderboard_cells").cells(workloads, {"small": fleet}, (0.8,))
    effort = docs("leaderboard_runs").Effort(seeds=2, trials=2, search_seeds=1, draws=50)
    made: pl.DataFrame = docs("leaderboard").run(cells, effort)
    return made


def test_every_policy_stands_in_every_cell_once_and_tuned_if_it_has_settings(frame: pl.DataFrame) -> None:
    expected = sorted(
        (workload, policy.name, variant)
        for workload in ("sharing10%", "sharing70%")
        for policy in POLICIES
        for variant in (("default", "tuned") if spaces(policy) else ("default",))
    )
    assert sorted(frame.select("workload", "policy", "variant").rows()) == expected


def test_in_every_cell_the_lowest_ranked_mean_has_won_and_no_mean_is_below_the_bound(frame: pl.DataFrame) -> None:
    assert (frame["ttft_mean_ms"] > frame["bound_mean_ms"]).all()
    for _, its in frame.filter(~pl.col("mark").is_in(["engines", "oracle"])).group_by("workload"):
        assert its.sort("ttft_mean_ms")["won"][0]
        assert not its.filter(pl.col("policy") == "throughput")["won"].any()


def test_the_bound_of_prompts_without_a_common_prefix_is_one_step_of_the_fastest_engine(
    docs: Callable[[str], Any], plain: Callable[..., Workload]
) -> None:
    engine = replace(ENGINE, noise_ratio=0.0)
    cluster = Cluster.of([engine.slowed(2.0), engine], plain([0.0, 0.0, 0.1], [400, 800, 1600], [50, 50, 50]))
    expected = [
        engine.step_ms(prompt_tokens=tokens, decoding=0, context_tokens=0, attention=tokens**2 / 2)
        for tokens in (400, 800, 1600)
    ]
    np.testing.assert_allclose(docs("leaderboard_runs").lower_bound_ms(cluster, range(2)), [expected] * 2)


def test_in_the_bound_a_prefix_is_there_once_it_was_seen(docs: Callable[[str], Any]) -> None:
    workload = sharing_workload(40, 5.0, 0.7, 1, prompt_tokens=(1000,))
    engine = replace(ENGINE, noise_ratio=0.0, kv_capacity_tokens=2000)  # too small to keep any, alone
    (bound_ms,) = docs("leaderboard_runs").lower_bound_ms(Cluster.of([engine], workload), range(1))
    first = workload.block_ids[workload.block_offsets[:-1]]
    seen = np.array([block in first[:i] for i, block in enumerate(first)])[2:]  # two are warm-up
    assert 0 < seen.sum() < len(seen)
    assert bound_ms[seen].max() < 0.6 * bound_ms[~seen].min()


def test_loads_are_shares_of_what_the_groups_serve_together(docs: Callable[[str], Any]) -> None:
    module = docs("leaderboard_cells")
    workload = sharing_workload(100, 3.0, 0.0, 1, prompt_tokens=(1000,))
    engine, slow = replace(ENGINE, noise_ratio=0.0), replace(ENGINE, noise_ratio=0.0).slowed(4.0)
    fast_per_s, slow_per_s = (module.saturation_per_s(([each],), workload) for each in (engine, slow))
    assert fast_per_s == pytest.approx(4 * slow_per_s)
    (cell,) = module.cells({"w": workload}, {"f": ([engine], [slow])}, (0.5,))
    assert cell.rate_per_s == pytest.approx(0.5 * (fast_per_s + slow_per_s))
    assert len(workload) / cell.cluster.workload.arrived_at_s[-1] == pytest.approx(cell.rate_per_s)


def test_what_differs_by_noise_alone_has_won_too(docs: Callable[[str], Any]) -> None:
    random = np.random.default_rng(0)
    best = random.exponential(100.0, (3, 400))
    near, far = best + random.normal(0.5, 50.0, best.shape), best + 50.0
    within = docs("leaderboard_runs").within_noise
    assert within([best, near, far], [True, True, True], 400) == [True, True, False]
    assert within([best / 2, best, near], [False, True, True], 400) == [True, True, True]


def test_a_frame_goes_through_csv_and_makes_a_page_and_a_picture(
    docs: Callable[[str], Any], frame: pl.DataFrame, tmp_path: Path
) -> None:
    board = docs("leaderboard")
    path = tmp_path / "leaderboard.csv"
    path.write_text(board.written(frame))
    again = board.read(path)
    assert board.written(again) == path.read_text()
    page, picture = board.page(again), board.picture(again)
    for policy in POLICIES:
        assert f">{policy.name}</text>" in picture
        assert page.count(f"| {policy.name}") == (3 if spaces(policy) and policy.name != "oracle-ttft" else 2)


def test_the_page_and_the_picture_are_what_the_cells_say(docs: Callable[[str], Any]) -> None:
    board = docs("leaderboard")
    frame = board.read(DOCS / "leaderboard.csv")
    assert board.page(frame) == (DOCS / "leaderboard.md").read_text()
    assert board.picture(frame) == (DOCS / "leaderboard.svg").read_text()
    assert set(frame["policy"]) <= {policy.name for policy in POLICIES}
    assert frame.select("workload", "fleet", "load").n_unique() == 7 * 2 * 3


def test_the_ranking_is_by_geometric_means_over_the_cells(docs: Callable[[str], Any]) -> None:
    rows = docs("leaderboard").read(DOCS / "leaderboard.csv").to_dicts()
    of = {(row["policy"], row["variant"], row["workload"], row["fleet"], row["load"]): row for row in rows}
    places = sorted({key[2:] for key in of})
    lines = [line.split(" | ") for line in (DOCS / "leaderboard.md").read_text().splitlines() if line.startswith("| ")]
    ranks = {cells[1].rstrip("¹²³⁴"): cells for cells in lines if cells[0].lstrip("| ").isdigit() or cells[0] == "| –"}
    assert set(ranks) == {row["policy"] for row in rows}
    for policy, cells in ranks.items():
        for column, variant in ((2, "default"), (3, "tuned")):
            if (policy, variant, *places[0]) not in of:
                assert cells[column] == ""
                continue
            logs = [
                math.log(
                    of[policy, variant, *place]["ttft_mean_ms"]
                    / of["aibrix-prefix-cache", "default", *place]["ttft_mean_ms"]
                )
                for place in places
            ]
            assert float(cells[column].replace(",", "")) == pytest.approx(math.exp(sum(logs) / 42), rel=0.02)
