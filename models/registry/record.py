"""What a model has seen: so that the next training knows what is new, and a router what is usual."""

from __future__ import annotations

from typing import Any

import numpy as np

from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.dataset import TrainingData, ids_sha256
from lodestar.models.parameters import Parameters
from lodestar.models.rows import Rows

__all__ = ["record_of"]

Ranges = dict[str, list[float] | None]


def record_of(
    data: TrainingData,
    rows: Rows,
    held_out_from: int,
    parameters: Parameters,
    seed: int,
    metrics: dict[str, Any],
    before: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write down what a model learned: from `rows`, and from all that `before` tells of if it extends that model."""
    ranges = _ranges(rows)
    return {
        "requests_seen": len(data.request_ids),
        # An incremental training reads no names of earlier requests: its 'seen' tells what the model has seen.
        **({"seen_sha256": ids_sha256(data.request_ids)} if data.request_ids else {}),
        "data_fingerprint": data.fingerprint,
        "held_out_from": held_out_from,
        "parameters": parameters.to_dict(),
        "seed": seed,
        "window": _window(rows, before["window"]["parts"] if before else []),
        "feature_ranges": _joined(before["feature_ranges"], ranges) if before else ranges,
        "metrics": metrics,
    }


def _window(rows: Rows, earlier: list[dict[str, Any]]) -> dict[str, Any]:
    """Span all parts, the full fit first, then each extension; count what was left out between their ends."""
    part = {
        "rows": len(rows),
        "first_request": int(rows.request_index[0]),
        "last_request": int(rows.request_index[-1]),
        "from_s": float(rows.arrived_at_s[0]),
        "to_s": float(rows.arrived_at_s[-1]),
    }
    parts = [*earlier, part]
    first, last = parts[0]["first_request"], part["last_request"]
    return {
        "rows": sum(each["rows"] for each in parts),
        "first_request": first,
        "last_request": last,
        "from_s": parts[0]["from_s"],
        "to_s": part["to_s"],
        "excluded": {why: int(((at >= first) & (at <= last)).sum()) for why, at in rows.excluded.items()},
        "parts": parts,
    }


def _ranges(rows: Rows) -> Ranges:
    """Return the smallest and the largest value of each feature; None where it was never known."""
    ranges: Ranges = {}
    for name, column in zip(FEATURE_NAMES, rows.features.T, strict=True):
        known = column[~np.isnan(column)]
        ranges[name] = [float(known.min()), float(known.max())] if len(known) else None
    return ranges


def _joined(before: Ranges, after: Ranges) -> Ranges:
    joined: Ranges = {}
    for name, new in after.items():
        known = [each for each in (before[name], new) if each is not None]
        joined[name] = [min(low for low, _ in known), max(high for _, high in known)] if known else None
    return joined
