"""The parts that calibration is made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestar.data.errors import ConfigError
from lodestar.data.log import Workload
from lodestar.data.workloads.sharing import sharing_workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.calibration.blocks import block_draws
from lodestar.pipeline.replay.calibration.coefficients import NAMES, center_of, precision
from lodestar.pipeline.replay.calibration.distance import band_means, distance
from lodestar.pipeline.replay.calibration.files import CalibratedCluster, load_cluster, save_cluster
from lodestar.pipeline.replay.calibration.heterogeneity import heterogeneity
from lodestar.pipeline.replay.calibration.linear import linear_step
from lodestar.pipeline.replay.calibration.stretch import Stretch


@given(st.lists(st.floats(-5, 9), min_size=1, max_size=60))
def test_bands_average_to_the_mean(values: list[float]) -> None:
    means = band_means(np.array(values), np.ones(len(values)))
    assert means @ [0.2, 0.2, 0.2, 0.2, 0.15, 0.05] == pytest.approx(np.mean(values), abs=1e-9)
    assert (np.diff(means) >= -1e-9).all()


def test_a_weight_counts_as_so_many_requests() -> None:
    random = np.random.default_rng(0)
    replayed, logged, weight = random.normal(size=50), random.normal(size=50), random.integers(0, 4, 50)
    repeated = distance(np.repeat(replayed, weight), np.repeat(logged, weight), np.ones(weight.sum()))
    assert distance(replayed, logged, weight.astype(float)) == pytest.approx(repeated)


def test_a_linear_step_undoes_what_is_linear_and_keeps_to_the_prior_where_nothing_is() -> None:
    random = np.random.default_rng(1)
    slope, logged = random.normal(size=(300, len(NAMES))), random.normal(size=300)
    slope[:, 3] = 0.0
    wanted = np.where(np.arange(len(NAMES)) == 3, 0.0, 0.2)
    pull = np.zeros(len(NAMES))
    step = linear_step(
        logged - slope @ wanted, logged, slope, [slice(0, 300)], np.ones(300), pull, 1e-6 * precision(), 1.0
    )
    told = np.arange(len(NAMES)) != 3
    assert step[told] == pytest.approx(wanted[told], abs=0.01)


def test_every_draw_has_as_many_blocks_as_the_log() -> None:
    drawn = block_draws(1000, draws=20, seed=3)
    assert drawn.sum(axis=1).tolist() == [1000.0] * 20
    assert (drawn == block_draws(1000, draws=20, seed=3)).all()


def test_instances_alike_but_for_their_errors_rarely_differ() -> None:
    random = np.random.default_rng(2)
    found = [heterogeneity(random.normal(0, 0.02, 6), np.full(6, 0.02), 25).differ for _ in range(300)]
    assert np.mean(found) < 0.03


def test_an_instance_without_an_estimate_is_taken_as_typical() -> None:
    test = heterogeneity(np.array([0.5, 0.0, np.nan, 0.01]), np.array([0.02, 0.02, np.nan, 0.02]), 25)
    assert test.differ
    assert test.shrunk[2] == 0.0


def test_a_stretch_keeps_prefixes_and_begins_at_its_own_first_arrival() -> None:
    workload = sharing_workload(100, rate_per_s=5.0, sharing_ratio=0.5, seed=0)
    cut = Stretch(30, 40, 70).of(workload)
    assert len(cut) == 40
    assert cut.arrived_at_s[0] == 0.0
    assert _blocks(cut, 5) == _blocks(workload, 35)
    assert cut.prompt_tokens.tolist() == workload.prompt_tokens[30:70].tolist()


def _blocks(workload: Workload, request: int) -> list[int]:
    return workload.block_ids[workload.block_offsets[request] : workload.block_offsets[request + 1]].tolist()


def test_a_calibrated_cluster_comes_back_from_its_file(tmp_path: Path) -> None:
    engines = [EngineModel(), EngineModel().slowed(1.5)]
    saved = CalibratedCluster("mine", "latencies", ["a", "b"], engines[0], engines, [engines] * 2, {"loss": 0.3})
    save_cluster(tmp_path / "deep" / "mine.json", saved)
    assert load_cluster(tmp_path / "deep" / "mine.json") == saved


@pytest.mark.parametrize("text", ["", "[]", '{"lodestar_cluster": 1}', '{"lodestar_cluster": 9}'])
def test_a_file_that_is_no_calibrated_cluster_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "no.json").write_text(text)
    with pytest.raises(ConfigError, match=r"no\.json") as error:
        load_cluster(tmp_path / "no.json")
    assert "\n" not in str(error.value)


def test_the_start_has_the_coefficients_it_names() -> None:
    assert len(center_of()) == len(NAMES) == len(precision())
