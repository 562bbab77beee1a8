"""All routes of one server as an ASGI app."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp

from lodestar import __version__
from lodestar.pipeline.serve.docs_page import docs_page
from lodestar.pipeline.serve.front import Front
from lodestar.pipeline.serve.llm_d_routes import llm_d_routes
from lodestar.pipeline.serve.native_routes import native_routes
from lodestar.pipeline.serve.openapi import with_gateways
from lodestar.pipeline.serve.refused import Refused
from lodestar.pipeline.serve.serving import Serving

__all__ = ["make_app"]

_MOST_FAULTS = 20


def make_app(serving: Serving) -> ASGIApp:
    """Return the app of a server, with everything that a request passes first."""
    app = FastAPI(
        title="Lodestar",
        version=__version__,
        description="A learned LLM-inference router. Latencies are milliseconds, ratios lie between 0 and 1.",
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(native_routes(serving))
    app.router.routes.extend(llm_d_routes(serving))
    app.add_exception_handler(RequestValidationError, _faults)
    app.add_exception_handler(HTTPException, _refusal)
    app.add_exception_handler(Refused, _refused)
    plain = app.openapi()
    document = with_gateways(plain)
    app.openapi = lambda: document  # type: ignore[method-assign]
    page = docs_page(document)

    async def docs(request: Request) -> Response:
        return HTMLResponse(page)

    app.add_route("/docs", docs, methods=["GET"], include_in_schema=False)
    known = {path for path in document["paths"] if "{" not in path} | {"/docs", "/openapi.json"}
    return Front(serving, app, frozenset(known))


async def _faults(request: Request, error: Exception) -> Response:
    """Name what is wrong, without the input: it may hold what JSON has no words for."""
    assert isinstance(error, RequestValidationError)
    found = [{"loc": list(one["loc"]), "msg": one["msg"], "type": one["type"]} for one in error.errors()]
    return JSONResponse({"detail": found[:_MOST_FAULTS]}, 422)


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told: Any = error.detail
    return JSONResponse({"detail": told}, error.status_code, dict(error.headers or {}))


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse(error.to_dict(), error.status)
