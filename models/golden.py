"""Golden rows: inputs over the trained range and beyond, missing values among them, with the answers they must give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ArtifactError
from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.latency import LatencyModel
from lodestar.models.scorer import score, scorer_of

__all__ = ["GOLDEN", "check_golden", "golden_rows"]

Floats = NDArray[np.float64]

GOLDEN: Final = "golden.json"
ROWS: Final = 64
TOLERANCE: Final = 1e-9  # relative


def golden_rows(models: dict[str, LatencyModel], ranges: dict[str, list[float] | None]) -> str:
    """Draw rows and record what LightGBM makes of them, as JSON; a feature never seen in training is missing."""
    rng = np.random.default_rng(0)
    low, high = (np.array([np.nan if r is None else r[i] for r in map(ranges.get, FEATURE_NAMES)]) for i in (0, 1))
    rows = low + rng.uniform(0.0, 1.2, (ROWS, len(FEATURE_NAMES))) * (high - low)  # a fifth beyond what was seen
    rows[rng.random(rows.shape) < 0.1] = np.nan
    expected = {target: model.predict(rows).tolist() for target, model in models.items()}
    inputs = [[None if np.isnan(x) else x for x in row] for row in rows.tolist()]
    return json.dumps({"features": list(FEATURE_NAMES), "rows": inputs, "expected_ms": expected}, indent=1) + "\n"


def check_golden(directory: Path, models: dict[str, LatencyModel]) -> int:
    """Score the golden rows both ways and return how many there are."""
    golden: dict[str, Any] = json.loads((directory / GOLDEN).read_text(encoding="utf-8"))
    if tuple(golden["features"]) != FEATURE_NAMES:
        raise ArtifactError(f"{directory / GOLDEN}: other features than this version makes. Train and ship it again")
    rows = np.array([[np.nan if x is None else x for x in row] for row in golden["rows"]], dtype=np.float64)
    for target, model in models.items():
        expected_ms = np.array(golden["expected_ms"][target])
        scored_ms = np.empty(len(rows))
        score(rows, scorer_of(model), scored_ms)
        _require_equal(directory, target, "LightGBM", model.predict(rows), expected_ms)
        _require_equal(directory, target, "the compiled scorer", scored_ms, expected_ms)
    return len(rows)


def _require_equal(directory: Path, target: str, by: str, got_ms: Floats, expected_ms: Floats) -> None:
    worst = int(np.argmax(np.abs(got_ms / expected_ms - 1.0)))
    if not abs(got_ms[worst] / expected_ms[worst] - 1.0) <= TOLERANCE:
        raise ArtifactError(
            f"{directory / GOLDEN}: {by} gives {got_ms[worst]!r} ms for {target} of row {worst}, "
            f"expected {expected_ms[worst]!r}. Train and ship it again"
        )
