"""Find the coefficients whose replay comes closest to the log: a coarse grid, then steps best to first order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.replay.calibration.coefficients import NAMES, OVERHEAD, center_of, penalty, precision
from lodestar.pipeline.replay.calibration.fleet import Fleet
from lodestar.pipeline.replay.calibration.forced import Forced
from lodestar.pipeline.replay.calibration.linear import linear_step

__all__ = ["DIFFERENCE", "Fit", "centers", "fit_at", "refine", "search", "slopes"]

Floats = NDArray[np.float64]

DIFFERENCE: Final = 0.08  # wide enough to smooth over which requests share a step
_SCALES: Final = np.log([1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4])
#: Prompt work against decoding, which differ with the model and its batch.
_PROMPT_SCALES: Final = np.log([1 / 3, 1.0, 3.0])
_PROMPT: Final = np.array([name in ("prompt_token_ms", "attention_ms") for name in NAMES])
_STEPS: Final = 12
#: Which requests share a step changes by jumps, so that steps end in hollows.
_RESTARTS: Final = 4
_NEAR: Final = 0.15
_DAMPINGS: Final = (0.0, 0.1, 1.0, 10.0)
_REACH: Final = 0.5
_ENOUGH: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Fit:
    """Coefficients, and how well they do.

    Attributes:
        at: logs of the coefficients.
        center: of the prior.
        objective: distance plus prior.
        replayed: logs of the latencies.
    """

    at: Floats
    center: Floats
    objective: float
    replayed: Floats


def search(forced: Forced, fleet: Fleet, center: Floats | None = None, seed: int = 0) -> Fit:
    """Find coefficients: first the scale of all, then that of prompt work, then each, from several starts nearby.

    `center` is what the prior is centered on, at any scale, instead of the usual start: measured step times, say.
    """
    coarse = _best([fit_at(forced, fleet, each, each) for each in centers(center)])
    prompts = [fit_at(forced, fleet, coarse.at + _PROMPT * scale, coarse.center) for scale in _PROMPT_SCALES]
    best = refine(forced, fleet, _best(prompts))
    random = np.random.default_rng(seed)
    for _ in range(_RESTARTS):
        near = best.at + _NEAR * random.standard_normal(len(NAMES))
        best = _best([best, refine(forced, fleet, fit_at(forced, fleet, near, best.center))])
    return best


def centers(center: Floats | None = None) -> list[Floats]:
    """Return the start, or another center, at every scale that an engine may have."""
    scaled = np.arange(len(NAMES)) != OVERHEAD
    return [(center_of() if center is None else center) + scaled * scale for scale in _SCALES]


def refine(forced: Forced, fleet: Fleet, start: Fit, steps: int = _STEPS, of_requests: Floats | None = None) -> Fit:
    """Improve a fit by robust steps for as long as they help; `of_requests` says what each request counts."""
    weight, parts = forced.weights(of_requests), list(forced.parts.values())
    best = fit_at(forced, fleet, start.at, start.center, weight)
    for _ in range(steps):
        slope, pull = slopes(forced, fleet, best), best.at - best.center
        ways = [
            linear_step(best.replayed, forced.logged, slope, parts, weight, pull, precision(), _REACH, damping)
            for damping in _DAMPINGS
        ]
        found = _best([fit_at(forced, fleet, best.at + way, best.center, weight) for way in ways])
        gained = best.objective - found.objective
        best = _best([best, found])
        if gained < _ENOUGH:
            break
    return best


def slopes(forced: Forced, fleet: Fleet, fit: Fit) -> Floats:
    """Return how each latency follows each coefficient: finite differences in logs, shape (latencies, coefficients)."""
    ways = DIFFERENCE * np.eye(len(NAMES))
    return np.stack([(forced(fleet.at(fit.at + way)) - fit.replayed) / DIFFERENCE for way in ways], axis=1)


def fit_at(forced: Forced, fleet: Fleet, at: Floats, center: Floats, weight: Floats | None = None) -> Fit:
    """Replay at these coefficients."""
    replayed = forced(fleet.at(at))
    counted = forced.weights() if weight is None else weight
    return Fit(at, center, forced.loss(replayed, counted) + penalty(at, center), replayed)


def _best(fits: list[Fit]) -> Fit:
    return min(fits, key=lambda fit: fit.objective)
