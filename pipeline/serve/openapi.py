"""What the OpenAPI document says of the routes that FastAPI does not know by itself."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["with_gateways"]

_TEXT: Final = {"schema": {"type": "string"}}
_REFUSED: Final = {"description": "Something in the body cannot be used; the answer names it."}
_LINE: Final = (
    "**@latency_metrics@requestID@7@request_start_time@702815@request_end_time@-9999@selectedpod@-9999@ttft@-9999"
    '@…@numInputTokens@2340@…@allPodsKvCacheHitRatios@{"10.0.0.1":0,"10.0.0.2":40}@…'
)


def with_gateways(document: dict[str, Any]) -> dict[str, Any]:
    """Add the routes of Lodestar's gateway, and name those of llm-d."""
    document["paths"] |= {
        "/infer": {"post": _infer()},
        "/flush": {"post": _flush()},
        "/healthz": {"get": _plain("operation", "Whether the process is there", "Always 200.")},
        "/readyz": {"get": _plain("operation", "Whether a trained model is loaded", "200, or 503 as long as none is.")},
    }
    llm_d = "As llm-d's latency predictor has it; see docs/gateways.md."
    for path in ("/predict", "/predict/bulk", "/predict/bulk/strict", "/add_training_data_bulk", "/reload"):
        document["paths"][path] = {"post": _plain("llm-d", path.strip("/").replace("/", " "), llm_d)}
    for path in ("/status", "/data/status", "/models/list", "/model/{name}/info"):
        document["paths"][path] = {"get": _plain("llm-d", path.strip("/").replace("/", " "), llm_d)}
    return document


def _plain(tag: str, summary: str, what: str) -> dict[str, Any]:
    return {"tags": [tag], "summary": summary, "description": what, "responses": {"200": {"description": "Done."}}}


def _infer() -> dict[str, Any]:
    return {
        "tags": ["Lodestar's gateway"],
        "summary": "Choose a pod for one log line",
        "description": "The line as Lodestar's gateway writes it, as text or as one JSON string.",
        "parameters": [
            {
                "name": "rewards",
                "in": "query",
                "description": "'list': predicted rewards as a list, beside the order of the pods.",
                "schema": {"enum": ["map", "list"], "default": "map"},
            }
        ],
        "requestBody": {"required": True, "content": {"text/plain": _TEXT | {"example": _LINE}}},
        "responses": {"200": {"description": "The pod.", "content": _json(_INFERRED)}, "422": _REFUSED},
    }


def _flush() -> dict[str, Any]:
    return {
        "tags": ["Lodestar's gateway"],
        "summary": "Take finished lines",
        "description": "Text with one line a request, or a JSON map of request id to line. "
        "(A body as llm-d's training server takes it on its /flush does what that does.)",
        "requestBody": {"required": True, "content": {"text/plain": _TEXT, "application/json": {"schema": {}}}},
        "responses": {"200": {"description": "How many were taken.", "content": _json(_FLUSHED)}, "422": _REFUSED},
    }


def _json(properties: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": {"type": "object", "properties": properties}}}


_INFERRED: Final[dict[str, Any]] = {
    "selected_pod": {"type": "string"},
    "ood_fallback": {
        "enum": [0, 1, 2, 3],
        "description": "0: take the pod. 1: all pods are outside the training range, 2: no model, no time or shadow "
        "mode: the gateway's own heuristic decides. 3: take the pod, drawn among equals.",
    },
    "fallback_reason": {"type": "string"},
    "predicted_rewards": {"type": "object", "description": "Pod → -TTFT in seconds; -99 without a model."},
    "chosen_pod_predicted_reward": {"type": "number"},
    "exploration": {"enum": [0, 1], "description": "1: another pod than the best was drawn."},
    "exploration_enabled": {"enum": [0, 1]},
    "num_trains": {"type": "integer", "description": "Models put in place since the start."},
    "num_flush": {"type": "integer", "description": "Flushes taken since the start."},
    "probability": {"type": "number", "description": "That the pod had of being chosen."},
    "artifact_version": {"type": "string"},
}
_FLUSHED: Final[dict[str, Any]] = {
    "accepted": {"type": "integer", "description": "Lines that are of use for training."},
    "refused": {"type": "object", "description": "Why → lines."},
    "reasons": {"type": "array", "items": {"type": "object"}, "description": "The first lines that were refused."},
    "learning": {"type": "boolean"},
    "num_trains": {"type": "integer"},
    "num_flush": {"type": "integer"},
}
