"""llm-d's pages about models: /model/…, /models/list and the archive of /model/export.

Its own server hands out pickled Python objects. There are none here: what is handed out is the text of the trees and
the JSON beside them, which `LatencyModel.load` reads.
"""

from __future__ import annotations

import io
import json
import tarfile
import time
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from lodestar.pipeline.serve.llm_d_answers import NOT_READY, answer, refusal
from lodestar.pipeline.serve.llm_d_contract import MODEL_TYPE, ModelText, ServesLlmD, iso, ready, served, target_of

__all__ = [
    "download_info", "lightgbm_importances", "lightgbm_text", "model_download", "model_export", "model_info",
    "models_list", "xgboost_trees",
]  # fmt: skip

#: Names that llm-d's servers know and we have no file for.
_ABSENT: Final = {
    "ttft_scaler": "trees need no scaler",
    "tpot_scaler": "trees need no scaler",
    "ttft_gated": "one model sees the queue as a feature, so there are no gated ones",
    "tpot_gated": "one model sees the queue as a feature, so there are no gated ones",
}
_LGB: Final = {f"{name}_{page}": f"/model/{name}/lgb/{path}" for name, page, path in (
    ("ttft", "model_txt", "txt"), ("tpot", "model_txt", "txt"),
    ("ttft", "importances", "importances"), ("tpot", "importances", "importances"),
)}  # fmt: skip


def model_info(serving: ServesLlmD, request: Request) -> Response:
    """Describe the file of one model."""
    name = request.path_params["name"]
    content = _content(serving, name)
    if isinstance(content, Response):
        return content
    told = _listed(serving, name)
    shown = {"model_name": name, "path": f"{target_of(name)}.json", **told, **served(serving)}
    return answer(shown)


def model_download(serving: ServesLlmD, request: Request) -> Response:
    """Hand out one model: JSON with all but the trees under 'model' and LightGBM's text under 'trees'."""
    name = request.path_params["name"]
    content = _content(serving, name)
    if isinstance(content, Response):
        return content
    return _file(content, "application/json", f"{target_of(name)}.json")


def models_list(serving: ServesLlmD, request: Request) -> Response:
    """List the files of all models that llm-d knows of."""
    return answer(
        {
            "models": {name: _listed(serving, name) for name in ("ttft", "tpot", *_ABSENT)},
            **served(serving),
            "server_time": iso(time.time()),
            "evaluation_metrics": _meaning(serving.objective.quantile),
        }
    )


def download_info(serving: ServesLlmD, request: Request) -> Response:
    """Say what can be downloaded; llm-d's client learns the type of the model here."""
    return answer(
        {
            **served(serving),
            "available_endpoints": {"lightgbm": _LGB},
            "model_status": {f"{name}_model_ready": _text(serving, name) is not None for name in ("ttft", "tpot")},
            "evaluation_info": _meaning(serving.objective.quantile),
        }
    )


def model_export(serving: ServesLlmD, request: Request) -> Response:
    """Hand out all models as a .tar.gz of the files that `LatencyModel.load` reads, with metadata.json beside them."""
    if ready(serving) is None:
        return refusal(503, NOT_READY)
    counts = serving.llm_d.counts()
    metadata = {
        "model_type": MODEL_TYPE,
        "quantile_alpha": serving.objective.quantile,
        "exported_at": iso(time.time()),
        "ttft_samples": counts["ttft"],
        "tpot_samples": counts["tpot"],
    }
    files = {"metadata.json": _indented(metadata)}
    for target, text in serving.model_texts().items():
        files[f"{target}.json"] = _indented(dict(text.values))
        files |= {f"{target}.{head}.txt" if head else f"{target}.txt": tree for head, tree in text.trees.items()}
    return _file(_archive(files), "application/gzip", "seed-model.tar.gz")


def lightgbm_text(serving: ServesLlmD, request: Request) -> Response:
    """Hand out the trees that answer, as LightGBM's text; they give the logarithm of latency over the baseline."""
    name = request.path_params["name"]
    text = _text(serving, name)
    if text is None:
        return _missing(name)
    return _file(_answering(serving, text).encode(), "text/plain; charset=utf-8", f"{name}_lgb_model.txt")


def lightgbm_importances(serving: ServesLlmD, request: Request) -> Response:
    """Say how often the trees that answer split on each feature."""
    name = request.path_params["name"]
    text = _text(serving, name)
    return _missing(name) if text is None else answer(_splits(text, _answering(serving, text)))


def xgboost_trees(serving: ServesLlmD, request: Request) -> Response:
    """Refuse: llm-d's client asks for them only from a server whose model_type is xgboost."""
    name = request.path_params["name"]
    return refusal(404, f"{name.upper()} model is not XGBoost: it is LightGBM, see /model/{name}/lgb/txt")


def _text(serving: ServesLlmD, name: str) -> ModelText | None:
    target = target_of(name)
    return serving.model_texts().get(target) if target else None


def _content(serving: ServesLlmD, name: str) -> bytes | Response:
    """Return the file of a model, or the refusal of a name that has none."""
    if name in _ABSENT:
        return refusal(404, f"Model {name} not found: {_ABSENT[name]}")
    if target_of(name) is None:
        return refusal(404, f"Unknown model: {name}")
    text = _text(serving, name)
    return _missing(name) if text is None else _json(text)


def _missing(name: str) -> Response:
    known = target_of(name) is not None
    return refusal(404, f"{name.upper()} model not available: none is trained" if known else f"Unknown model: {name}")


def _listed(serving: ServesLlmD, name: str) -> dict[str, Any]:
    text = _text(serving, name)
    if text is None:
        return {"exists": False, "size_bytes": 0, "last_modified": None}
    return {"exists": True, "size_bytes": len(_json(text)), "last_modified": iso(serving.loaded_at_s)}


def _meaning(quantile: float) -> dict[str, str]:
    return {
        "quantile_loss": "pinball loss; lower is better",
        "coverage_percent": f"share of latencies below the prediction; target {quantile:.1%}",
        "violation_rate_percent": f"share of latencies above it; target {1 - quantile:.1%}",
    }


def _answering(serving: ServesLlmD, text: ModelText) -> str:
    """Return the trees that answer: those of the quantile, or of the mean where it has none of its own."""
    shape = text.values["quantile_shapes"].get(serving.objective.head, "")
    return text.trees.get(shape) or text.trees[""]


def _splits(text: ModelText, trees: str) -> dict[str, int]:
    """Read the counts that stand behind the trees; a feature that no tree splits on has 0."""
    _, _, after = trees.partition("feature_importances:\n")
    told = dict(line.split("=", 1) for line in after.split("\n\n", 1)[0].splitlines())
    return {name: int(told.get(name, 0)) for name in text.values["features"]}


def _json(text: ModelText) -> bytes:
    return json.dumps({"model": dict(text.values), "trees": dict(text.trees)}).encode()


def _indented(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"


def _archive(files: dict[str, str]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(content.encode()), int(time.time())
            archive.addfile(entry, io.BytesIO(content.encode()))
    return made.getvalue()


def _file(content: bytes, media_type: str, name: str) -> Response:
    return Response(content, media_type=media_type, headers={"Content-Disposition": f'attachment; filename="{name}"'})
