"""llm-d's training server: /add_training_data_bulk, /flush, /data/status and /debug/prefix_distribution."""

from __future__ import annotations

import time
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from lodestar.models.metrics import mae_ms, pinball_ms
from lodestar.models.online.finished import Finished
from lodestar.models.online.llm_d_rows import INPUT_KEYS, PROMPT_KEY, llm_d_features
from lodestar.pipeline.serve.llm_d_answers import answer, in_time, safely
from lodestar.pipeline.serve.llm_d_bodies import ENTRIES, FLUSH, FlushRequest, input_columns, label_columns
from lodestar.pipeline.serve.llm_d_contract import Objective, ServesLlmD, iso, ready
from lodestar.pipeline.serve.llm_d_predict import predicted_ms
from lodestar.pipeline.serve.llm_d_window import TARGET_NAMES, WINDOW_KEYS

__all__ = ["add_training_data", "data_status", "finished_of", "flush", "llm_d_flush", "prefix_distribution"]

Floats = NDArray[np.float64]

_PROMPT: Final = INPUT_KEYS.index(PROMPT_KEY)


async def add_training_data(serving: ServesLlmD, request: Request) -> Response:
    """Take finished requests to learn from."""
    return await in_time(await request.body(), lambda body: _added(serving, body))


async def flush(serving: ServesLlmD, request: Request) -> Response:
    """Forget what came so far."""
    return llm_d_flush(serving, await request.body())


def llm_d_flush(serving: ServesLlmD, body: bytes) -> Response:
    """Answer llm-d's POST /flush, whose body is a JSON object or nothing."""
    return safely(body, lambda told: _flushed(serving, told))


def data_status(serving: ServesLlmD, request: Request) -> Response:
    """Say what is kept of what llm-d sent."""
    counts, scores, brain = serving.llm_d.counts(), serving.llm_d.scores(), ready(serving)
    return answer(
        {
            "training_data": _samples(counts),
            "test_data": _samples(dict.fromkeys(counts, 0)),  # rows are scored before they are learned: none held out
            "ensemble": _regimes(serving),
            "metrics": {f"{name}_scores_count": len(kept) for name, kept in scores.items()},
            "bucket_distribution": serving.llm_d.buckets(),
            "model_ready": brain is not None,
            "last_retrain": None if brain is None else iso(brain.trained_at_s),
            "learning": serving.learning,
            "scores": {"unit": "ms, " + _loss_name(serving.objective), **scores},
        }
    )


def prefix_distribution(serving: ServesLlmD, request: Request) -> Response:
    """Say how TTFT depends on the prefix score, in the rows that are kept."""
    told = serving.llm_d.by_prefix()
    return answer(told or {"error": "No training samples available"})


def finished_of(features: Floats, labels: Floats, now_s: float) -> Finished:
    """Return the rows of `features` and `labels` (n, 2; TTFT and TPOT) as finished requests.

    They count as finished now, by our own clock, and as decided before that by the latency that they have: the clock
    of who sent them is not to decide what is recent.
    """
    lasted_ms = np.nansum(labels, axis=1)
    return Finished(
        features=features,
        kind=np.full(len(features), ""),
        ttft_ms=labels[:, 0],
        tpot_ms=labels[:, 1],
        censored=np.zeros(len(features), dtype=np.bool_),
        decided_at_s=now_s - lasted_ms / 1000.0,
        finished_at_s=np.full(len(features), now_s),
    )


def _added(serving: ServesLlmD, body: bytes) -> Response:
    entries = ENTRIES.validate_json(body).entries
    inputs, labels = input_columns(entries), label_columns(entries)
    features = llm_d_features(inputs)
    _keep(serving, inputs, labels)
    _score(serving, features, labels)
    labelled, prompted = ~np.isnan(labels).all(axis=1), inputs[:, _PROMPT] > 0
    if serving.learning:
        serving.learn(finished_of(features, labels, time.time()).only(labelled & prompted))
    told: dict[str, Any] = {"message": f"Accepted {len(entries)} training samples."}
    for what, known in (("latency", labelled), ("prompt", prompted)):
        if not known.all():
            told[f"without_{what}"] = int((~known).sum())  # these teach nothing, here as in `lodestar ingest`
    if not serving.learning:
        told["note"] = "learning is off: they are counted, and the model stays as it is"
    return answer(told, 202)


def _keep(serving: ServesLlmD, inputs: Floats, labels: Floats) -> None:
    shown = inputs[:, [INPUT_KEYS.index(key) for key in WINDOW_KEYS]]
    for name, latency_ms in zip(TARGET_NAMES, labels.T, strict=True):
        known = ~np.isnan(latency_ms)
        serving.llm_d.add(name, np.column_stack([shown, latency_ms])[known])


def _score(serving: ServesLlmD, features: Floats, labels: Floats) -> None:
    """Compare the rows with what the model in use says of them before it learns them."""
    brain = ready(serving)
    if brain is None:
        return
    told = predicted_ms(brain, serving.objective, features)
    for name, predicted, latency_ms in zip(TARGET_NAMES, told, labels.T, strict=True):
        known = ~np.isnan(latency_ms)
        if predicted is not None and known.any():
            serving.llm_d.add_score(name, _loss_ms(serving.objective, latency_ms[known], predicted[known]))


def _loss_ms(objective: Objective, latency_ms: Floats, predicted_ms: Floats) -> float:
    if objective.head is None:
        return mae_ms(latency_ms, predicted_ms)
    return pinball_ms(latency_ms, predicted_ms, objective.quantile)


def _loss_name(objective: Objective) -> str:
    return "mean absolute error" if objective.head is None else f"pinball loss at {objective.quantile}"


def _samples(counts: dict[str, int]) -> dict[str, int]:
    return {f"{name}_samples": count for name, count in counts.items()} | {"total_samples": sum(counts.values())}


def _regimes(serving: ServesLlmD) -> dict[str, Any]:
    """Return llm-d's numbers of its two sub-models, of which we have none: one model sees the queue as a feature."""
    told: dict[str, Any] = {"ensemble_mode": False, "ensemble_active": False, "min_samples_for_split": 0}
    for name in TARGET_NAMES:
        waiting = serving.llm_d.rows(name)[:, WINDOW_KEYS.index("num_request_waiting")] > 0
        told |= {f"{name}_noqueue_samples": int((~waiting).sum()), f"{name}_queued_samples": int(waiting.sum())}
    return told


def _flushed(serving: ServesLlmD, body: bytes) -> Response:
    told = FLUSH.validate_json(body.strip() or b"{}")
    forgotten = serving.llm_d.clear(rows=told.flush_training_data, scores=told.flush_metrics)
    if told.flush_training_data:
        serving.forget()
    return answer(
        {
            "success": True,
            "flushed_at": iso(time.time()),
            "reason": told.reason,
            **{f"{name}_training_samples_flushed": count for name, count in forgotten.items()},
            **{f"{name}_test_samples_flushed": 0 for name in forgotten},
            "metrics_cleared": told.flush_metrics,
            "message": _message(told, forgotten),
        }
    )


def _message(told: FlushRequest, forgotten: dict[str, int]) -> str:
    parts = []
    if told.flush_training_data:
        parts.append(f"{forgotten['ttft']} TTFT and {forgotten['tpot']} TPOT training samples")
    if told.flush_test_data:
        parts.append("0 TTFT and 0 TPOT test samples")
    if told.flush_metrics:
        parts.append("all metric scores")
    return f"Successfully flushed: {', '.join(parts)}" if parts else "No data flushed"
