"""Whether something about jobs is alike under all policies that logged them: CausalSim's check of a latent.

Who sent a job cannot change its size, so what is taken for the size must have the same distribution under each logger;
the time that a job took need not, for policies prefer some servers. Kolmogorov and Smirnov's distance, with a p-value
from permutations of the policies over trajectories: jobs that follow each other are alike, so they are no draws.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.models.engine import EngineModel

__all__ = ["invariance", "largest_distance"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_PERMUTATIONS: Final = 199
_GRID: Final = 100


def invariance(
    processing_ms: Floats, server: Ints, logger: Ints, trajectory: Ints, servers: list[EngineModel], seed: int = 0
) -> list[dict[str, Any]]:
    """Test the sizes that calibrated servers give, and the processing times that they were found from.

    Args:
        processing_ms: of each job, shape (n,).
        server: where it was, shape (n,).
        logger: who sent it, shape (n,).
        trajectory: of which it is, shape (n,).
        servers: as calibrated.
        seed: of the permutations.

    Returns:
        A row each: 'what', 'ks' (the largest distance of a logger's jobs from all others) and 'p_value'.
    """
    base = np.array([each.prefill_base_ms for each in servers])[server]
    unit = np.array([each.prompt_token_ms for each in servers])[server]
    rows = []
    for what, values in (("calibrated size", (processing_ms - base) / unit), ("processing time", processing_ms)):
        ks, p_value = largest_distance(values, logger, trajectory, seed)
        rows.append({"what": what, "ks": ks, "p_value": p_value})
    return rows


def largest_distance(values: Floats, logger: Ints, trajectory: Ints, seed: int = 0) -> tuple[float, float]:
    """Return the largest distance of one logger's values from all others', and how often chance gives as much.

    The distance is taken on a grid of quantiles of all values.

    >>> values, trajectory = np.tile(np.arange(50.0), 20), np.repeat(np.arange(20), 50)
    >>> largest_distance(values, trajectory % 2, trajectory)
    (0.0, 1.0)
    >>> moved = values + 100 * (trajectory % 2)
    >>> distance, p_value = largest_distance(moved, trajectory % 2, trajectory)
    >>> distance, p_value < 0.02
    (1.0, True)
    """
    grid = np.quantile(values, np.linspace(0, 1, _GRID, endpoint=False)[1:])
    groups, of_job = np.unique(trajectory, return_inverse=True)
    below = np.zeros((len(groups), len(grid)))
    np.add.at(below, of_job, values[:, None] <= grid)
    count = np.bincount(of_job).astype(np.float64)
    label = np.zeros(len(groups), dtype=np.int64)
    label[of_job] = np.unique(logger, return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    found = _distance(below, count, label)
    drawn = [_distance(below, count, rng.permutation(label)) for _ in range(_PERMUTATIONS)]
    as_far = sum(each >= found - 1e-12 for each in drawn)
    return found, (1 + as_far) / (1 + _PERMUTATIONS)


def _distance(below: Floats, count: Floats, label: Ints) -> float:
    """Return the largest distance between the distribution under a label and that under all others."""
    member = np.eye(int(label.max()) + 1)[label].T
    inside, jobs = member @ below, (member @ count)[:, None]
    outside = below.sum(axis=0) - inside
    return float(np.abs(inside / jobs - outside / (count.sum() - jobs)).max())
