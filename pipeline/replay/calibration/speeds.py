"""The speed of each instance, in figures and in words."""

from __future__ import annotations

from typing import Final

import numpy as np

from lodestar.pipeline.replay.calibration.calibration import InstanceSpeed
from lodestar.pipeline.replay.calibration.heterogeneity import SIGNIFICANT
from lodestar.pipeline.replay.calibration.per_instance import Slowness

__all__ = ["slow_notes", "speeds"]

_NORMAL: Final = 1.96


def speeds(slow: Slowness | None, names: list[str]) -> list[InstanceSpeed]:
    """Return how long the steps of each instance are; nothing where there is one instance only."""
    if slow is None:
        return []
    test = slow.test
    low, at, high = (np.exp(test.estimates + side * _NORMAL * test.errors) for side in (-1, 0, 1))
    return [
        InstanceSpeed(
            name,
            float(at[j]) if np.isfinite(at[j]) else None,
            (float(low[j]), float(high[j])) if np.isfinite(at[j]) else None,
            float(np.exp(test.shrunk[j])),
        )
        for j, name in enumerate(names)
    ]


def slow_notes(slow: Slowness | None, names: list[str]) -> list[str]:
    """Name the instances that are slower or faster than the typical one."""
    if slow is None:
        return []
    test = slow.test
    if not test.differ:
        return [
            f"instances are equally fast as far as the log tells (p = {test.p_value:.2g}, not below {SIGNIFICANT:g})"
        ]
    apart = [j for j in np.argsort(-np.abs(test.shrunk)) if abs(test.shrunk[j]) > _NORMAL * test.errors[j]]
    named = ", ".join(f"{names[j]} {np.exp(test.shrunk[j]):.3g}" for j in apart)
    return [f"instances differ in speed (p = {test.p_value:.1g}); steps as multiples of the typical: {named or 'none'}"]
