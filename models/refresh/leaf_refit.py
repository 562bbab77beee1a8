"""New values for the leaves of a model that keeps all its splits: of an L2 mean only.

LightGBM moves each leaf towards ``-G / (H + lambda)``, which is the answer for a squared error alone: it silently ruins
quantile, L1, Huber, Poisson and gamma objectives (LightGBM issue 5760).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from lodestar.data.errors import ConfigError
from lodestar.models.fit import require_rows
from lodestar.models.labels import labelled, right_in_the_mean, seen_by
from lodestar.models.latency import LatencyModel, require_inputs
from lodestar.models.parameters import Parameters
from lodestar.models.rows import Rows

__all__ = ["DECAY", "refit_leaves"]

DECAY: Final = 0.9  # share of its old value that a leaf keeps; LightGBM's default, the best of those measured
REFITTABLE: Final = ("l2", "regression")


def refit_leaves(model: LatencyModel, rows: Rows, parameters: Parameters, seed: int) -> LatencyModel:
    """Return the model with the leaves of its mean moved towards what `rows` say; its heads stay as they are.

    Raises:
        ConfigError: the trees were not grown for a squared error.
        DataError: too few rows.
    """
    objective = parameters.mean(0)["objective"]
    if objective not in REFITTABLE:
        raise ConfigError(
            f"objective {objective!r} cannot be refitted by its leaves; expected l2. Use --strategy window"
        )
    require_inputs(model.booster, parameters.features)
    require_rows(rows, model.target)
    labels = seen_by(model, rows, seed)
    level = right_in_the_mean(model, rows.features, labels).mean_ratio
    data = labelled(rows, labels.mean - np.log(level), model.baseline, parameters)
    booster = model.booster.refit(
        data.data,
        np.asarray(data.label),
        decay_rate=DECAY,
        weight=data.weight,
        feature_name=list(parameters.features),  # or LightGBM forgets the names
        num_threads=1,
    )
    return right_in_the_mean(replace(model, booster=booster), rows.features, labels)
