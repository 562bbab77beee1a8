"""Golden rows: inputs over the trained range and beyond, missing values among them, with the answers they must give."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ArtifactError
from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.latency import LatencyModel
from lodestar.models.serving import Decider, all_paths

__all__ = ["GOLDEN", "TOLERANCE", "check_golden", "golden_rows", "read_golden", "worst_difference"]

Floats = NDArray[np.float64]
Answers = dict[str, Floats]
Ranges = dict[str, list[float] | None]

GOLDEN: Final = "golden.json"
ROWS: Final = 64
TOLERANCE: Final = 1e-9  # relative
TRAINED: Final = "LightGBM"  # the path that the others must equal


def golden_rows(models: dict[str, LatencyModel], ranges: Ranges) -> str:
    """Draw rows and record what LightGBM makes of them, as JSON; a feature never seen in training is missing."""
    rows = _drawn(ranges)
    expected = {
        target: {name: ms.tolist() for name, ms in all_paths(model, rows)[TRAINED].items()}
        for target, model in models.items()
    }
    inputs = [[None if np.isnan(x) else x for x in row] for row in rows.tolist()]
    return json.dumps({"features": list(FEATURE_NAMES), "rows": inputs, "expected_ms": expected}, indent=1) + "\n"


def read_golden(directory: Path) -> tuple[Floats, dict[str, Answers]]:
    """Return the golden rows of an artifact, (rows, len(FEATURES)), and model → 'mean' or a quantile → ms.

    Raises:
        ArtifactError: the rows are of other features.
    """
    golden: dict[str, Any] = json.loads((directory / GOLDEN).read_text(encoding="utf-8"))
    if tuple(golden["features"]) != FEATURE_NAMES:
        raise ArtifactError(f"{directory / GOLDEN}: other features than this version makes. Train and ship it again")
    rows = np.array([[np.nan if x is None else x for x in row] for row in golden["rows"]], dtype=np.float64)
    expected_ms = golden["expected_ms"].items()
    return rows, {key: {name: np.array(ms) for name, ms in answers.items()} for key, answers in expected_ms}


def check_golden(directory: Path, models: Mapping[str, LatencyModel], decider: Decider) -> int:
    """Score the golden rows in all ways, and as a router does, and return how many there are.

    Raises:
        ArtifactError: an answer is off, or the rows are of other features.
    """
    rows, expected_ms = read_golden(directory)
    for key, model in models.items():
        paths = all_paths(model, rows) | {"the router": decider.targets[key].everything_ms(rows)}
        for by, answers in paths.items():
            _require_equal(directory / GOLDEN, key, by, answers, expected_ms[key])
    return len(rows)


def worst_difference(model: LatencyModel, ranges: Ranges) -> float:
    """Save a model, load it again, score golden rows in all ways, and return the largest relative difference.

    Raises:
        ArtifactError: it cannot be read again, or not be scored in one of the ways.
    """
    rows = _drawn(ranges)
    expected = all_paths(model, rows)[TRAINED]
    with tempfile.TemporaryDirectory() as directory:
        model.save(Path(directory))
        again = LatencyModel.load(Path(directory), model.target)
    found = [_differences(answers, expected)[name] for answers in all_paths(again, rows).values() for name in answers]
    worst: float = np.max(np.stack(found))  # NaN if any is
    return float(worst)


def _drawn(ranges: Ranges) -> Floats:
    rng = np.random.default_rng(0)
    low, high = (np.array([np.nan if r is None else r[i] for r in map(ranges.get, FEATURE_NAMES)]) for i in (0, 1))
    share = rng.uniform(0.0, 1.2, (ROWS, len(FEATURE_NAMES)))  # a fifth beyond what was seen
    rows: Floats = low + share * (high - low)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    return rows


def _differences(answers: Answers, expected: Answers) -> Answers:
    return {name: np.abs(ms / expected[name] - 1.0) for name, ms in answers.items()}


def _require_equal(path: Path, target: str, by: str, answers: Answers, expected: Answers) -> None:
    for name, off in _differences(answers, expected).items():
        worst = int(np.argmax(off))
        if not off[worst] <= TOLERANCE:
            raise ArtifactError(
                f"{path}: {by} gives {float(answers[name][worst])!r} ms for the {name} {target} of row {worst}, "
                f"expected {float(expected[name][worst])!r}. Train and ship it again"
            )
