"""How often latencies stay at or below the quantiles that were stated for them, by load slice."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar.models.slices import SLICES
from lodestar.models.uncertainty.conformal import QUANTILES

__all__ = ["coverage_by_slice"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def coverage_by_slice(slices: Ints, latency: Floats, stated: Floats) -> list[dict[str, Any]]:
    """Tabulate the rows and the coverage of each of `QUANTILES`; a slice without rows is left out.

    Args:
        slices: of each row, (n,), as `load_slice` returns them.
        latency: measured, in ms or in logs of it, (n,).
        stated: in the same unit, shape (n, 3): what each row was stated before its outcome was known.

    >>> coverage_by_slice(np.array([0, 0, 3]), np.array([1.0, 3.0, 9.0]), np.array([[2.0, 4.0, 8.0]] * 3))[0]
    {'waiting_requests': '0', 'rows': 2, 'p50': 0.5, 'p90': 1.0, 'p99': 1.0}
    """
    table: list[dict[str, Any]] = []
    for position, name in enumerate(SLICES):
        inside = slices == position
        if inside.any():
            covered = (latency[inside, None] <= stated[inside]).mean(axis=0).tolist()
            table.append(
                {"waiting_requests": name, "rows": int(inside.sum())} | dict(zip(QUANTILES, covered, strict=True))
            )
    return table
