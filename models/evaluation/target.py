"""All figures of one target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.models.evaluation.compare import differences
from lodestar.models.evaluation.controls import refitted, shuffled
from lodestar.models.evaluation.decisions import Decisions
from lodestar.models.evaluation.errors import point_scores, quantile_scores, reliability, saturation, slice_scores
from lodestar.models.evaluation.permutation import permutation_importance
from lodestar.models.evaluation.ranking import Choices, ranking
from lodestar.models.evaluation.shap import ShapPoints, shap_points, shap_table
from lodestar.models.evaluation.slicing import slices_of
from lodestar.models.evaluation.unseen import Judged
from lodestar.models.fit import MIN_ROWS
from lodestar.models.latency import LatencyModel
from lodestar.models.parameters import Parameters
from lodestar.models.rivals import constant_rival, linear_rival
from lodestar.models.rows import Rows
from lodestar.models.surface import violations
from lodestar.models.uncertainty.calibrate import calibrate
from lodestar.models.uncertainty.conformal import Conformal

__all__ = ["Material", "evaluate_target"]

Floats = NDArray[np.float64]

MOST_DECISIONS: Final = 20_000  # newest ones; their candidates take memory

NOT_REFITTED: Final = (
    "no refits, no constant and no linear regression: the rows that the model learned from are not in this workspace"
)


@dataclass(frozen=True, slots=True)
class Material:
    """What a target is judged by.

    Attributes:
        judges: the model, and the one that it is compared with if any.
        rows: that are new to both, in time order.
        training: that the model learned from; None where they are not known.
        decisions: of the whole dataset.
    """

    judges: Sequence[Judged]
    rows: Rows
    training: Rows | None
    decisions: Decisions


def evaluate_target(material: Material, seeds: int, seed: int) -> tuple[dict[str, Any], ShapPoints]:
    """Return all figures, ready for JSON, and the contributions that figures are drawn from."""
    judged, rows = material.judges[0], material.rows
    complete = rows.only(~rows.censored)
    predicted_ms = judged.model.predict(rows.features)
    stated = _stated(judged, rows)
    choices = material.decisions.choices(rows.last(MOST_DECISIONS))
    slices = slices_of(rows.features, material.decisions.gpu_of(rows))
    shap = shap_points(judged.model, complete.features)
    learned = _from_training(material, seeds, seed)
    document = {
        "judged": judged.told,
        "against_judged": material.judges[1].told if len(material.judges) > 1 else None,
        "rows": len(rows),
        "censored": int(rows.censored.sum()),
        "excluded": {reason: len(those) for reason, those in rows.excluded.items() if len(those)},
        "requests": rows.requests,
        "first_request": int(rows.request_index[0]),
        "last_request": int(rows.request_index[-1]),
        "rows_trained": None if material.training is None else len(material.training),
        "predictors": {"model": point_scores(rows, predicted_ms, seed), **learned.pop("predictors")},
        "quantiles": None if stated is None else quantile_scores(rows, *stated, seed),
        "slices": slice_scores(rows, slices, predicted_ms, None if stated is None else stated[0][:, 1], seed),
        "saturation": saturation(rows, predicted_ms, seed),
        "reliability": reliability(rows, predicted_ms, seed),
        "ranking": {"model": ranking(choices, _candidates_ms(judged.model, choices), seed)},
        "controls": learned,
        "permutation": permutation_importance(judged.model.predict, complete.features, complete.latency_ms, seed),
        "shap": shap_table(shap),
        "surface": _surface(material),
        "differences": [],
    }
    if len(material.judges) > 1:
        _add_second(document, material, predicted_ms, stated, choices, seed)
    return document, shap


def _add_second(
    document: dict[str, Any],
    material: Material,
    predicted_ms: Floats,
    stated: tuple[Floats, Floats | None] | None,
    choices: Choices,
    seed: int,
) -> None:
    """Put the second model beside the first."""
    first, second = (each.model for each in material.judges)
    rows = material.rows
    other_ms, other_stated = second.predict(rows.features), _stated(material.judges[1], rows)
    candidates_ms = _candidates_ms(first, choices), _candidates_ms(second, choices)
    document["predictors"]["against"] = point_scores(rows, other_ms, seed)
    document["ranking"]["against"] = ranking(choices, candidates_ms[1], seed)
    document["differences"] = differences(
        rows,
        (predicted_ms, other_ms),
        (stated and stated[0], other_stated and other_stated[0]),
        choices,
        candidates_ms,
        seed,
    )


def _stated(judged: Judged, rows: Rows) -> tuple[Floats, Floats | None] | None:
    """Return the quantiles as the model states them while it follows its own errors, and as it does without.

    A twin starts without a correction, since one could only come from the very rows that it is judged on: what it
    states without following them means nothing.
    """
    model = judged.model
    if not model.heads:
        return None
    if judged.is_twin:
        return calibrate(replace(model, conformal=Conformal.fresh()), rows)[0], None
    return calibrate(model, rows)[0], model.predict_quantiles(rows.features)


def _surface(material: Material) -> list[dict[str, Any]]:
    at = material.rows.request_index
    steps = {step: after[at] for step, after in material.decisions.steps.items()}
    return violations(material.judges[0].model.predict, material.rows.features, steps)


def _candidates_ms(model: LatencyModel, choices: Choices) -> Floats:
    n, m, k = choices.features.shape
    return model.predict(choices.features.reshape(-1, k)).reshape(n, m)


def _from_training(material: Material, seeds: int, seed: int) -> dict[str, Any]:
    """Return what needs the training rows: simpler predictors, other seeds and shuffled labels."""
    training, rows, judged = material.training, material.rows, material.judges[0]
    if training is None or len(training) < MIN_ROWS:
        return {"predictors": {}, "note": NOT_REFITTED, "seeds": None, "shuffled": None}
    rivals = {"constant": constant_rival, "linear": linear_rival}
    scores = {name: point_scores(rows, rival(training, rows.features), seed) for name, rival in rivals.items()}
    if not seeds:
        return {"predictors": scores, "note": "no refits were asked for", "seeds": None, "shuffled": None}
    target, parameters = judged.model.target, Parameters(**judged.recipe.record["parameters"])
    numbers = [seed + i for i in range(seeds)]
    return {
        "predictors": scores,
        "note": None,
        "seeds": refitted(training, rows, target, parameters, numbers),
        "shuffled": shuffled(training, rows, target, parameters, numbers),
    }
