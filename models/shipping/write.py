"""The files of an artifact: text models, golden rows, exports, and the manifest over them."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numba
import numpy as np
from numpy.typing import NDArray

from lodestar import __version__
from lodestar.data.errors import ConfigError
from lodestar.data.schema import TTFT_MS
from lodestar.features.definitions import FEATURE_NAMES, FEATURES
from lodestar.models.exports.formats import write_export
from lodestar.models.latency import LatencyModel
from lodestar.models.registry.golden import GOLDEN, golden_rows
from lodestar.models.seal import SCHEMA_VERSION, write_manifest
from lodestar.models.shipping.names import file_stem, kind_of, target_of

__all__ = ["DEFAULT_POLICY", "ranges_of", "write_artifact"]

Floats = NDArray[np.float64]
Record = Mapping[str, Any]
Ranges = dict[str, list[float] | None]

#: The policy of an artifact that names none: the one that these models are for, at its defaults.
DEFAULT_POLICY: Final[dict[str, Any]] = {"name": "lodestar-online", "settings": {}}
#: What a model's record tells that an artifact keeps, as far as it is there.
_KEPT: Final = (
    "data_fingerprint", "requests_seen", "seen_sha256", "seen", "window", "parameters", "seed", "metrics",
)  # fmt: skip


def write_artifact(
    directory: Path,
    models: Mapping[str, LatencyModel],
    *,
    records: Mapping[str, Record],
    dataset: str,
    objective: str = TTFT_MS,
    policy: Mapping[str, Any] | None = None,
    gate: Mapping[str, Mapping[str, Any]] | None = None,
    exports: Sequence[str] = (),
    trained_at_s: float | None = None,
) -> str:
    """Write models as an artifact into an empty directory, and return the artifact's version.

    Args:
        directory: where; it exists.
        models: TARGET or TARGET@KIND → model; at least the one of the objective.
        records: the same keys → what a model has seen: 'feature_ranges' (feature → [lowest, highest], or None where it
            was never known) and 'rows' that it was trained on, or a 'window' that tells them; and what else
            `lodestar.models.registry.record.record_of` makes, as far as it is there.
        dataset: that they were trained on; 'online' for a router's own traffic.
        objective: the latency that the router is to minimise.
        policy: 'name' and 'settings' of the policy to route by; `DEFAULT_POLICY` if left out.
        gate: target → what the promotion gate said, as from `lodestar.models.shipping.gate.gate_of`; empty where it was
            not run.
        exports: formats to add, of `lodestar.models.exports.formats.FORMATS`.
        trained_at_s: when the newest model was fitted, Unix time; None where nobody knows.

    Raises:
        ConfigError: there is no model for the objective, or a format's packages are not installed.
    """
    if objective not in models:
        raise ConfigError(f"objective {objective!r} has no model; expected one of {', '.join(models)}. Name that")
    for key, model in models.items():
        model.save_trees(directory, file_stem(key))
    ranges = _joined([records[key]["feature_ranges"] for key in models])
    (directory / GOLDEN).write_text(golden_rows(dict(models), ranges), encoding="utf-8")
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "dataset": dataset,
        "objective": objective,
        "trained_at_s": trained_at_s,
        "policy": dict(policy or DEFAULT_POLICY),
        "gate": {key: dict(found) for key, found in (gate or {}).items()},
        "libraries": _libraries(),
        "features": [
            {"name": f.name, "unit": f.unit, "formula": f.formula, "fields": list(f.fields)} for f in FEATURES
        ],
        "targets": {key: _entry(key, models[key], records[key]) for key in models},
        "exports": {name: write_export(name, directory, models) for name in exports},
    }
    return write_manifest(directory, manifest)


def ranges_of(low: Floats, high: Floats) -> Ranges:
    """Return 'feature_ranges' of the lowest and the highest value of each feature, (len(FEATURES),) each; NaN: unknown.

    >>> low, high = np.full(len(FEATURE_NAMES), np.nan), np.full(len(FEATURE_NAMES), np.nan)
    >>> low[0], high[0] = 10.0, 4000.0
    >>> ranges_of(low, high)["prompt_tokens"], ranges_of(low, high)["hit_ratio"]
    ([10.0, 4000.0], None)
    """
    pairs = zip(FEATURE_NAMES, low.tolist(), high.tolist(), strict=True)
    return {name: None if np.isnan(a) or np.isnan(b) else [a, b] for name, a, b in pairs}


def _joined(ranges: Sequence[Ranges]) -> Ranges:
    """Return the ranges that hold all of these: golden rows lie in what any of the models has seen, and beyond."""
    joined: Ranges = {}
    for name in FEATURE_NAMES:
        known = [span for each in ranges if (span := each[name]) is not None]
        joined[name] = [min(low for low, _ in known), max(high for _, high in known)] if known else None
    return joined


def _entry(key: str, model: LatencyModel, record: Record) -> dict[str, Any]:
    rows = record["rows"] if "rows" in record else record["window"]["rows"]
    return {
        "target": target_of(key),
        "kind": kind_of(key),
        "model": model.to_dict(),
        "trees": model.trees,
        "rows": int(rows),
        "feature_ranges": record["feature_ranges"],
    } | {name: record[name] for name in _KEPT if name in record}


def _libraries() -> dict[str, str]:
    return {
        "lodestar": __version__,
        "lightgbm": version("lightgbm"),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "python": platform.python_version(),
    }
