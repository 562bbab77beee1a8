"""The routes that llm-d's endpoint picker calls: those of its prediction server and of its training server, in one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lodestar.pipeline.serve.llm_d_answers import NOT_READY, answer, refusal
from lodestar.pipeline.serve.llm_d_contract import ServesLlmD, iso, ready, served
from lodestar.pipeline.serve.llm_d_models import (
    download_info,
    lightgbm_importances,
    lightgbm_text,
    model_download,
    model_export,
    model_info,
    models_list,
    xgboost_trees,
)
from lodestar.pipeline.serve.llm_d_predict import predict, predict_bulk, predict_strict, status
from lodestar.pipeline.serve.llm_d_training import (
    add_training_data,
    data_status,
    flush,
    llm_d_flush,
    prefix_distribution,
)

__all__ = ["llm_d_flush", "llm_d_routes"]

Page = Callable[[ServesLlmD, Request], Response]
Action = Callable[[ServesLlmD, Request], Awaitable[Response]]


def llm_d_routes(serving: ServesLlmD, *, health: bool = True) -> list[Route]:
    """Return the routes, of which those with `health` and /flush are left out for an app that has its own.

    The routes without a body are GET, the others POST. Bodies have as many bytes as the app lets through: 10,000 rows
    take up to 4 MB.
    """
    pages: dict[str, Page] = {
        "/status": status,
        "/data/status": data_status,
        "/debug/prefix_distribution": prefix_distribution,
        "/models/list": models_list,
        "/model/export": model_export,
        "/model/download/info": download_info,
        "/model/{name}/info": model_info,
        "/model/{name}/download": model_download,
        "/model/{name}/lgb/txt": lightgbm_text,
        "/model/{name}/lgb/importances": lightgbm_importances,
        "/model/{name}/xgb/json": xgboost_trees,
    }
    actions: dict[str, Action] = {
        "/predict": predict,
        "/predict/bulk": predict_bulk,
        "/predict/bulk/strict": predict_strict,
        "/add_training_data_bulk": add_training_data,
    }
    if health:
        pages |= {"/healthz": _healthz, "/readyz": _readyz}
        actions |= {"/reload": _reload, "/flush": flush}
    routes = [Route(path, _page(serving, page), methods=["GET"]) for path, page in pages.items()]
    return routes + [Route(path, _action(serving, act), methods=["POST"]) for path, act in actions.items()]


def _page(serving: ServesLlmD, page: Page) -> Callable[[Request], Response]:
    """Make an endpoint that is no coroutine: Starlette runs it in a thread, where it holds up no decision."""

    def endpoint(request: Request) -> Response:
        return page(serving, request)

    return endpoint


def _action(serving: ServesLlmD, act: Action) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await act(serving, request)

    return endpoint


def _healthz(serving: ServesLlmD, request: Request) -> Response:
    return answer({"status": "ok", "service": "lodestar"})


def _readyz(serving: ServesLlmD, request: Request) -> Response:
    if ready(serving) is None:
        return refusal(503, NOT_READY)
    return answer({"status": "ready", **served(serving)})


async def _reload(serving: ServesLlmD, request: Request) -> Response:
    why = await run_in_threadpool(serving.reload)
    told = {
        "synced": why is None,
        "loaded": why is None,
        "is_ready": ready(serving) is not None,
        **served(serving),
        "last_load_time": iso(serving.loaded_at_s),
    }
    return answer(told if why is None else {**told, "detail": why})
