"""Whether new models predict better than those that serve: on the newest requests, which neither was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.features.definitions import FEATURES
from lodestar.models.fit import MIN_ROWS
from lodestar.models.online.brain import Brain
from lodestar.models.online.finished import Finished
from lodestar.models.online.learner import train_models
from lodestar.models.serving import Decider, TargetScorer

__all__ = ["no_better"]

Floats = NDArray[np.float64]

_NEWEST: Final = 0.2  # share of the rows that is predicted


def no_better(rows: Finished, incumbent: Mapping[str, Any], seed: int) -> str | None:
    """Say why the models that serve should stay, or None.

    Models of the older rows predict the newest fifth, as the models that serve do; the mean absolute error of log TTFT
    is compared. The incumbent may have seen some of these rows, which is to its advantage.

    Args:
        rows: to train on.
        incumbent: 'values' and 'texts' of the models that serve, by target.
        seed: of the training.
    """
    in_order = rows.only(np.argsort(rows.finished_at_s, kind="stable"))
    split = int((1.0 - _NEWEST) * len(in_order))
    older, newest = in_order.only(slice(None, split)), in_order.only(slice(split, None))
    models = train_models(older, seed=seed)
    if not models or len(newest) < MIN_ROWS // 2:
        return f"{len(rows)} rows are too few to compare on"
    serving = {t: TargetScorer.of(values, incumbent["texts"][t]) for t, values in incumbent["values"].items()}
    new, old = _error(Decider.of(models), newest), _error(Decider(serving), newest)
    if new < old:
        return None
    return f"mean error of log TTFT on the newest {len(newest)} rows {new:.4f}, against {old:.4f} of what serves"


def _error(decider: Decider, rows: Finished) -> float:
    known = ~rows.censored & (rows.ttft_ms > 0)
    nothing = np.full(len(FEATURES), np.nan)
    predicted = Brain(decider, nothing, nothing).predict_features(rows.features, rows.kind.tolist())
    errors = np.abs(np.log(rows.ttft_ms[known] / predicted.ttft_ms[known]))
    return float(errors.mean()) if len(errors) else np.inf
