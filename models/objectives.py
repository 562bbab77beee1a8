"""How rows weigh in the fit of the mean: which errors count, and for which candidates.

The label is log(latency / baseline), so that equal weights count errors as ratios. Each objective is a function of
the rows and their baselines alone; `docs/objectives.md` compares them on decisions in replay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError, unknown
from lodestar.models.rows import Rows
from lodestar.models.slices import load_slice

__all__ = ["OBJECTIVES", "row_weights", "usable_objectives"]

Floats = NDArray[np.float64]
Objective = Callable[[Rows, Floats], Floats]


def _ms(rows: Rows, physical_ms: Floats) -> Floats:
    """Errors count in ms: in proportion to the baseline, so that long latencies decide."""
    return physical_ms


def _ratio(rows: Rows, physical_ms: Floats) -> Floats:
    """Errors count as ratios: all rows alike."""
    return np.ones(len(rows))


def _propensity(rows: Rows, physical_ms: Floats) -> Floats:
    """Errors count as ratios, on the candidates that a uniform choice would have logged: 1 / propensity."""
    unfit = ~((rows.propensity > 0.0) & (rows.propensity <= 1.0))
    if unfit.any():
        raise DataError(
            f"objective 'propensity': {int(unfit.sum())} of {len(rows)} rows have no propensity above 0 and up to 1; "
            "expected one a row. Ingest a log that has them, or train with another objective"
        )
    return 1.0 / rows.propensity


def _balanced(rows: Rows, physical_ms: Floats) -> Floats:
    """Errors count as ratios, and every load slice that has rows counts as much as any other."""
    of_slice = load_slice(rows.features)
    return 1.0 / np.bincount(of_slice)[of_slice]


def _choice(rows: Rows, physical_ms: Floats) -> Floats:
    """Errors count as ratios, half of the weight on all rows alike and half by 1 / baseline.

    A greedy router chooses candidates with short predictions: there it must tell which is shorter, and a long one only
    has to be seen to be long.
    """
    short: Floats = 1.0 / physical_ms
    return np.asarray(0.5 + 0.5 * short / short.mean())


#: Name → function of the rows and their baselines in ms, which returns a weight above 0 for each row.
OBJECTIVES: Final[dict[str, Objective]] = {
    "ms": _ms,
    "ratio": _ratio,
    "propensity": _propensity,
    "balanced": _balanced,
    "choice": _choice,
}


def row_weights(objective: str, rows: Rows, physical_ms: Floats) -> Floats:
    """Return the weight of each row, shape (n,), 1 in the mean.

    Args:
        objective: one of `OBJECTIVES`.
        rows: what is fitted to.
        physical_ms: their baselines, shape (n,), above 0.

    Raises:
        ConfigError: no such objective.
        DataError: the rows lack what it needs.

    >>> rows = Rows(np.arange(3), np.zeros((3, 20)), np.ones(3), np.zeros(3, dtype=bool),
    ...             np.array([0.5, 0.25, 0.25]), np.arange(3.0), np.arange(3.0), 3, {})
    >>> row_weights("ms", rows, np.array([100.0, 200.0, 300.0])).tolist()
    [0.5, 1.0, 1.5]
    >>> row_weights("propensity", rows, np.ones(3)).round(3).tolist()
    [0.6, 1.2, 1.2]
    """
    if objective not in OBJECTIVES:
        raise unknown("objective", objective, OBJECTIVES)
    weights = OBJECTIVES[objective](rows, physical_ms)
    normal: Floats = weights / weights.mean()
    return normal


def usable_objectives(rows: Rows) -> list[str]:
    """Return the objectives for which the rows have what it takes: what a search may try."""
    return [name for name in OBJECTIVES if _has_what_it_takes(name, rows)]


def _has_what_it_takes(objective: str, rows: Rows) -> bool:
    try:
        OBJECTIVES[objective](rows, np.ones(len(rows)))
    except DataError:
        return False
    return True
