"""Trees as treelite writes them: one file for the mean and one for each head, in 64-bit floats.

They give log ratios; what turns these into ms (baseline, mean ratio, conformal offsets) is in the manifest, under the
model of the target.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.baseline import Baseline
from lodestar.models.latency import LatencyModel
from lodestar.models.serving import quantiles_of

__all__ = ["HOLDS", "answers", "write"]

Floats = NDArray[np.float64]

HOLDS: Final = (
    "trees alone, as treelite serializes them, over targets.<key>.model.features in this order; they give "
    "log(latency / baseline). In ms: mean_ratio * baseline_ms * exp(trees), with targets.<key>.model"
)


def write(directory: Path, stem: str, model: LatencyModel) -> list[str]:
    """Write the trees of the mean and of the heads; return the names of the files."""
    import treelite

    boosters = {"": model.booster} | model.heads
    for head, booster in boosters.items():
        treelite.frontend.from_lightgbm(booster).serialize(directory / _file(stem, head))
    return [_file(stem, head) for head in boosters]


def answers(directory: Path, stem: str, values: Mapping[str, Any], rows: Floats) -> dict[str, Floats]:
    """Return what the files make of rows (n, len(FEATURES)), together with the manifest: 'mean' and quantiles → ms."""
    import treelite

    inputs = np.ascontiguousarray(rows[:, [FEATURE_NAMES.index(name) for name in values["features"]]])
    physical_ms = Baseline.from_dict(values["baseline"]).predict(rows)

    def raw_ms(head: str) -> Floats:
        trees = treelite.Model.deserialize(directory / _file(stem, head))
        log_ratio = np.asarray(treelite.gtil.predict(trees, inputs, nthread=1), dtype=np.float64)
        return np.asarray(physical_ms * np.exp(log_ratio.reshape(len(rows))))

    shape_ms = {"mean": raw_ms("")} | {head: raw_ms(head) for head in values["heads"]}
    quantiles_ms = quantiles_of(rows, shape_ms, values["quantile_shapes"], values["conformal"])
    return {"mean": values["mean_ratio"] * shape_ms["mean"]} | quantiles_ms


def _file(stem: str, head: str) -> str:
    return f"{stem}.{head}.treelite" if head else f"{stem}.treelite"
