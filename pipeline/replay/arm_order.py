"""Whether the replay puts the arms of a stream in the order that they were measured in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["arm_order"]

Floats = NDArray[np.float64]


def arm_order(arms: Mapping[str, tuple[Floats, Sequence[Floats]]], counted: NDArray[np.bool_]) -> dict[str, Any] | None:
    """Order the arms by mean TTFT, measured and replayed with their own choices, over the requests that all measured.

    Args:
        arms: name → what it measured and what each run gave it, one value a request, NaN or 0 where there is none.
        counted: which requests count.

    Returns:
        Both orders, slowest first, whether they are the same, and the pairs of arms that come in the wrong order;
        None where there are not two arms.

    >>> slow, fast = np.array([2.0, 4.0]), np.array([1.0, 2.0])
    >>> found = arm_order({"slow": (slow, [slow + 1]), "fast": (fast, [fast - 0.5])}, np.ones(2, dtype=bool))
    >>> found["measured"], found["right"]
    (['slow', 'fast'], True)
    """
    common = counted & np.logical_and.reduce([truth > 0 for truth, _ in arms.values()]) if arms else counted
    if len(arms) < 2 or not common.any():
        return None
    measured = {name: float(truth[common].mean()) for name, (truth, _) in arms.items()}
    replayed = {name: float(np.nanmean([run[common] for run in runs])) for name, (_, runs) in arms.items()}
    wrong = [
        [one, two]
        for one, two in combinations(arms, 2)
        if (measured[one] - measured[two]) * (replayed[one] - replayed[two]) <= 0
    ]
    return {
        "measured": sorted(measured, key=lambda name: -measured[name]),
        "predicted": sorted(replayed, key=lambda name: -replayed[name]),
        "measured_ms": measured,
        "predicted_ms": replayed,
        "requests": int(common.sum()),
        "right": not wrong,
        "wrong_pairs": wrong,
    }
