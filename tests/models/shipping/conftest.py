"""Two small models with a model of one kind of instance beside them, and an artifact of all three."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lodestar.models.fit import fit
from lodestar.models.latency import LatencyModel
from lodestar.models.parameters import Parameters
from lodestar.models.rows import Rows
from lodestar.models.shipping.write import ranges_of, write_artifact

SMALL = Parameters(rounds=5, min_data_in_leaf=20)
Written = tuple[dict[str, LatencyModel], dict[str, dict[str, Any]]]


@pytest.fixture(scope="session")
def written(make_rows: Callable[..., Rows]) -> Written:
    """Models by their names, and what they have seen, as a router that learns online knows it."""
    models, records = {}, {}
    for seed, key in enumerate(("ttft_ms", "tpot_ms", "ttft_ms@A100/40.5 GB")):
        rows = make_rows(300, seed=seed, slower=1.0 + seed)
        models[key] = fit(rows, key.partition("@")[0], SMALL, 0)[0]
        ranges = ranges_of(rows.features.min(axis=0), rows.features.max(axis=0))
        records[key] = {"feature_ranges": ranges, "rows": len(rows), "parameters": SMALL.to_dict()}
    return models, records


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory, written: Written) -> Path:
    """An artifact that no test changes."""
    directory = tmp_path_factory.mktemp("sound") / "artifact"
    directory.mkdir()
    models, records = written
    write_artifact(directory, models, records=records, dataset="online", trained_at_s=1.7e9)
    return directory


@pytest.fixture
def artifact(sound: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(sound, tmp_path / "artifact")
    return tmp_path / "artifact"
