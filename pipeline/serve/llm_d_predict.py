"""llm-d's prediction server: /predict, /predict/bulk, /predict/bulk/strict and /status."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from lodestar.data.schema import TPOT_MS, TTFT_MS
from lodestar.models.online.brain import Brain
from lodestar.models.online.llm_d_rows import INPUT_KEYS, LABEL_KEYS, UNFILLED, llm_d_features
from lodestar.models.serving import TargetScorer
from lodestar.pipeline.serve.llm_d_answers import NotReady, answer, in_time, refusal
from lodestar.pipeline.serve.llm_d_bodies import BULK, ITEM, ROWS, Entry, Row, in_words, input_columns
from lodestar.pipeline.serve.llm_d_contract import Objective, ServesLlmD, iso, ready, scorer_for, served

__all__ = ["predict", "predict_bulk", "predict_strict", "predicted_ms", "status"]

Floats = NDArray[np.float64]

_NOT_FINITE: Final = "the model has no finite prediction for it"
#: Fields that are checked, and that no model of ours looks at.
_UNUSED: Final = sorted(set(Entry.model_fields) - {*INPUT_KEYS, *LABEL_KEYS})


def predicted_ms(brain: Brain, objective: Objective, features: Floats) -> list[Floats | None]:
    """Return TTFT and TPOT of every row of `features`, each of shape (n,); None without a model of it."""
    scorers = [scorer_for(brain, target, objective) for target in (TTFT_MS, TPOT_MS)]
    return [None if scorer is None else _at(scorer, objective, features) for scorer in scorers]


async def predict(serving: ServesLlmD, request: Request) -> Response:
    """Predict one row."""
    return await in_time(await request.body(), lambda body: _one(serving, body))


async def predict_strict(serving: ServesLlmD, request: Request) -> Response:
    """Predict rows, or none where one is wrong: what llm-d's client asks for on every request that it routes."""
    return await in_time(await request.body(), lambda body: _strict(serving, body))


async def predict_bulk(serving: ServesLlmD, request: Request) -> Response:
    """Predict the rows that are right, and say what is wrong with the others."""
    return await in_time(await request.body(), lambda body: _bulk(serving, body))


def status(serving: ServesLlmD, request: Request) -> Response:
    """Say what is served, and what of a row it does not look at."""
    brain = serving.brain
    exist = {
        f"{name}_model": scorer_for(brain, target, serving.objective) is not None
        for name, target in (("ttft", TTFT_MS), ("tpot", TPOT_MS))
    }
    return answer(
        {
            "is_ready": ready(serving) is not None,
            **served(serving),
            "last_model_load": iso(serving.loaded_at_s),
            "training_server_url": "",  # this server trains as well
            "models_exist": exist,
            "ensemble_active": False,
            "version": None if brain is None else brain.version,
            "unused_fields": _UNUSED,
            "unfilled_features": list(UNFILLED),
        }
    )


def _one(serving: ServesLlmD, body: bytes) -> Response:
    row = ITEM.validate_json(body)
    (item,) = _items(serving, [row])
    return answer(item) if item else refusal(422, _NOT_FINITE)


def _strict(serving: ServesLlmD, body: bytes) -> Response:
    started_s = time.perf_counter()
    items = _items(serving, ROWS.validate_json(body).requests)
    if None in items:
        return refusal(422, f"row {items.index(None)}: {_NOT_FINITE}")
    return answer({"predictions": items, **_counts(items, started_s)})


def _bulk(serving: ServesLlmD, body: bytes) -> Response:
    started_s = time.perf_counter()
    told = BULK.validate_json(body).requests
    rows, errors = _sorted_out(told)
    made = dict(zip(rows, _items(serving, list(rows.values())), strict=True))
    errors += [_error(i, _NOT_FINITE, told[i]) for i, item in made.items() if item is None]
    items = [made.get(i) for i in range(len(told))]
    errors.sort(key=lambda error: error["index"])
    return answer({"predictions": items, "errors": errors, **_counts(items, started_s)})


def _sorted_out(told: Sequence[Any]) -> tuple[dict[int, Row], list[dict[str, Any]]]:
    """Return the rows that are right by their place, and the errors of the others."""
    rows, errors = {}, []
    for i, one in enumerate(told):
        try:
            rows[i] = ITEM.validate_python(one)
        except ValidationError as error:
            errors.append(_error(i, in_words(error), one))
    return rows, errors


def _error(index: int, why: str, told: Any) -> dict[str, Any]:
    return {"index": index, "error": why, "request": told}


def _items(serving: ServesLlmD, rows: Sequence[Row]) -> list[dict[str, Any] | None]:
    """Return the answer to every row; None where no finite number comes out."""
    brain = ready(serving)
    if brain is None:
        raise NotReady
    told = predicted_ms(brain, serving.objective, llm_d_features(input_columns(rows)))
    finite = np.all([np.isfinite(ms) for ms in told if ms is not None], axis=0)
    same = {"predicted_at": iso(time.time()), **served(serving), "last_model_load": iso(serving.loaded_at_s)}
    ttft_ms, tpot_ms = ([None] * len(rows) if ms is None else ms.tolist() for ms in told)
    pairs = zip(ttft_ms, tpot_ms, finite.tolist(), strict=True)
    return [{"ttft_ms": ttft, "tpot_ms": tpot, **same} if known else None for ttft, tpot, known in pairs]


def _counts(items: Sequence[object], started_s: float) -> dict[str, Any]:
    made = sum(item is not None for item in items)
    return {
        "total_requests": len(items),
        "successful_predictions": made,
        "failed_predictions": len(items) - made,
        "processing_time_ms": (time.perf_counter() - started_s) * 1000.0,
    }


def _at(scorer: TargetScorer, objective: Objective, features: Floats) -> Floats:
    mean_ms = scorer.mean_ms(features)
    if objective.head is None:
        return mean_ms
    return scorer.quantiles_ms(features, mean_ms)[:, list(scorer.shapes).index(objective.head)]
