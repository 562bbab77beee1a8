"""What a model would lose without a feature: its error with the feature's values in random order.

Features that rise and fall together stand in for each other, and one alone looks useless while the other is there
(Hooker, Mentch and Zhou 2021). So groups of them are put in the same random order together as well. The whole model is
asked, baseline and trees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.evaluation.parts import estimate
from lodestar.models.evaluation.spearman import midranks

__all__ = ["correlated_groups", "permutation_importance"]

Floats = NDArray[np.float64]

REPEATS: Final = 3
MOST_ROWS: Final = 4000  # evenly spaced; more shows nothing new
ALIKE: Final = 0.7  # least |rank correlation| between any two features of a group


def permutation_importance(
    predict: Callable[[Floats], Floats], features: Floats, measured_ms: Floats, seed: int = 0
) -> list[dict[str, Any]]:
    """Return how many ms the mean absolute error grows, with its interval, the most important first.

    Args:
        predict: features (n, k) → ms (n,).
        features: in time order, shape (n, k).
        measured_ms: of complete rows, shape (n,).
        seed: of the random orders.

    >>> rows = np.random.default_rng(0).uniform(0.0, 100.0, (200, len(FEATURE_NAMES)))
    >>> first = permutation_importance(lambda x: x[:, 0], rows, rows[:, 0])[0]
    >>> first["features"], round(first["mae_growth_ms"]["value"])
    (['prompt_tokens'], 32)
    """
    at = np.linspace(0, len(features) - 1, min(len(features), MOST_ROWS)).astype(np.int64)
    features, measured_ms = features[at], measured_ms[at]
    own = np.abs(predict(features) - measured_ms)
    varying = [column for column in range(features.shape[1]) if _varies(features[:, column])]
    groups = [[column] for column in varying] + [of for of in correlated_groups(features, varying) if len(of) > 1]
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(features)) for _ in range(REPEATS)]
    found = []
    for columns in groups:
        grown = np.mean([np.abs(predict(_mixed(features, columns, order)) - measured_ms) for order in orders], axis=0)
        found.append(
            {
                "features": [FEATURE_NAMES[column] for column in columns],
                "mae_growth_ms": estimate(grown - own, seed),
            }
        )
    return sorted(found, key=lambda each: -(each["mae_growth_ms"]["value"] or 0.0))


def correlated_groups(features: Floats, columns: list[int]) -> list[list[int]]:
    """Group the columns so that any two of a group have a rank correlation of at least 0.7, of either sign.

    Complete linkage: a chain of pairs makes no group. A missing value counts as the column's median.
    """
    if len(columns) < 2:
        return [[column] for column in columns]
    known = features[:, columns]
    filled = np.where(np.isnan(known), np.nanmedian(known, axis=0), known)
    ranks = np.stack([midranks(column) for column in filled.T])
    distance = 1.0 - np.abs(np.corrcoef(ranks))
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(np.maximum(distance, 0.0), checks=False), method="complete")
    labels = fcluster(tree, 1.0 - ALIKE, criterion="distance")
    return [[columns[i] for i in np.flatnonzero(labels == label)] for label in dict.fromkeys(labels.tolist())]


def _varies(values: Floats) -> bool:
    known = values[~np.isnan(values)]
    return bool(len(known) and (known.min() < known.max()))


def _mixed(features: Floats, columns: list[int], order: NDArray[np.int64]) -> Floats:
    mixed = features.copy()
    mixed[:, columns] = features[order][:, columns]
    return mixed
