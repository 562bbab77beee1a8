"""The best step where latencies are taken as linear in the logs of the coefficients: least absolute deviations."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.replay.calibration.distance import BANDS, band_means

__all__ = ["linear_step"]

Floats = NDArray[np.float64]

_ROUNDS: Final = 10
_SMALLEST: Final = 0.01  # deviations below this count as none: it keeps the weights of a round finite


def linear_step(
    replayed: Floats,
    logged: Floats,
    slope: Floats,
    parts: list[slice],
    weight: Floats,
    pull: Floats,
    precision: Floats,
    reach: float,
    damping: float = 0.0,
) -> Floats:
    """Minimise distance plus prior over steps, by iteratively reweighted least squares.

    Args:
        replayed: logs of the replayed latencies.
        logged: logs of the logged ones.
        slope: of each replayed value to each coefficient, shape (values, coefficients).
        parts: where each kind of latency lies.
        weight: of each value.
        pull: the present coefficients less the center of the prior.
        precision: of the prior.
        reach: no coefficient moves farther than this.
        damping: what a step of length one costs, to keep to where the slopes hold.
    """
    step = np.zeros(slope.shape[1])
    bands = [band_means(logged[part], weight[part]) for part in parts]
    shares = [np.concatenate([weight[part] / weight[part].sum(), np.full(BANDS, 1 / BANDS)]) for part in parts]
    for _ in range(_ROUNDS):
        curvature, gradient = 2 * (precision + damping * np.eye(len(step))), -2 * precision @ pull
        for part, of_bands, share in zip(parts, bands, shares, strict=True):
            rows, at = _with_bands(replayed[part], slope[part], weight[part], step)
            wanted = np.concatenate([logged[part], of_bands]) - at
            scaled = rows * (share / np.maximum(np.abs(wanted - rows @ step), _SMALLEST))[:, None]
            curvature = curvature + scaled.T @ rows
            gradient = gradient + scaled.T @ wanted
        before, step = step, np.clip(np.linalg.solve(curvature, gradient), -reach, reach)
        if np.abs(step - before).max() < 1e-3:
            break
    return step


def _with_bands(replayed: Floats, slope: Floats, weight: Floats, step: Floats) -> tuple[Floats, Floats]:
    """Return slopes and values, those of the bands after those of the requests; bands are as the step orders them."""
    at = replayed + slope @ step
    of_bands = band_means(at, weight, np.column_stack([slope, at]))
    rows = np.concatenate([slope, of_bands[:, :-1]])
    return rows, np.concatenate([replayed, of_bands[:, -1] - of_bands[:, :-1] @ step])
