"""The native endpoint: candidates in, a choice with its probabilities out; outcomes back; reload; metrics."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from lodestar.pipeline.serve.finishing import Finishing
from lodestar.pipeline.serve.front import TURN
from lodestar.pipeline.serve.giving_way import give_way
from lodestar.pipeline.serve.metrics import CONTENT_TYPE
from lodestar.pipeline.serve.native_bodies import (
    Decided,
    DecideRequest,
    OutcomeRow,
    OutcomesRequest,
    OutcomesTaken,
    Predicted,
    Refusal,
    Reloaded,
)
from lodestar.pipeline.serve.outcome import Outcome
from lodestar.pipeline.serve.serving import Answer, Ask, Serving

__all__ = ["native_routes"]

ROUTE = "/v1/decide"
_AT_ONCE = 32  # outcomes between two looks at who else waits


def native_routes(serving: Serving) -> APIRouter:
    """Return the routes of the native endpoint."""
    router, number, begun = APIRouter(), itertools.count(), f"{time.time_ns():x}"

    @router.post(ROUTE, tags=["native"], summary="Choose an instance for a request")
    async def decide(body: DecideRequest, request: Request) -> Decided:
        """Score the candidates, and choose one of them.

        The decision is remembered until /v1/outcomes tells how it ended. Send what your gateway counts before it adds
        this request; decisions that it cannot have counted yet are added here.
        """
        name = body.request_id or f"{begun}-{next(number)}"
        turn = request.scope.get(TURN)
        return _in_haste(serving, body, name, turn) if turn else _decided(serving, body, name)

    @router.post("/v1/outcomes", tags=["native"], summary="Tell how requests ended")
    async def outcomes(body: OutcomesRequest) -> OutcomesTaken:
        """Join outcomes to their decisions: for the decision log, for training, and to watch the model's errors."""
        batch, refused, now_s = Finishing(serving), [], time.time()
        for n, row in enumerate(body.outcomes):
            why = batch.take(_outcome(row), now_s)
            if why is not None:
                refused.append(Refusal(decision_id=row.decision_id, why=why))
            if n % _AT_ONCE == _AT_ONCE - 1:
                batch.done()
                await give_way()
        batch.done()
        return OutcomesTaken(learned=batch.learned, logged=batch.logged, refused=refused)

    @router.post("/v1/reload", tags=["operation"], summary="Read the artifact again")
    async def reload() -> Reloaded:
        """Load the artifact that the server was started with, check its golden rows, and swap it in.

        An artifact that fails a check leaves the one before it serving, and the answer says why.
        """
        why = await asyncio.to_thread(serving.reload)
        return Reloaded(reloaded=why is None, why_not=why, artifact_version=serving.version)

    @router.get("/metrics", tags=["operation"], summary="Metrics for Prometheus", response_class=Response)
    async def metrics() -> Response:
        """Return all metrics in Prometheus' text format."""
        await serving.tidy(time.time())
        return Response(serving.metrics.text(), media_type=CONTENT_TYPE)

    return router


def _decided(serving: Serving, body: DecideRequest, name: str) -> Decided:
    ask = Ask(
        request_id=name,
        prompt_tokens=body.prompt_tokens,
        names=tuple(each.instance for each in body.candidates),
        kinds=tuple(each.kind for each in body.candidates),
        snapshot=np.array([each.known() for each in body.candidates]),
        group=-1 if body.prefix_group is None else body.prefix_group,
        session_id=body.session_id,
    )
    answer = serving.decide(ask, ROUTE, falls_back=False)
    chosen = ask.names[answer.best]
    return Decided(
        decision_id=name,
        instance=chosen if answer.followed else None,
        would_choose=chosen,
        source=answer.source,  # type: ignore[arg-type]
        scores=_finite(answer.cost.tolist()),
        probabilities=_finite(answer.probability.tolist()),
        predicted=_predicted(answer),
        explored=answer.explored,
        artifact_version=answer.version,
    )


def _in_haste(serving: Serving, body: DecideRequest, name: str, why: str) -> Decided:
    """Choose the fewest requests in flight; nothing is remembered, so its outcome will not be known."""
    serving.metrics.decided(ROUTE, why)
    best = min(body.candidates, key=lambda each: each.inflight_requests or 0.0)
    count = len(body.candidates)
    return Decided(
        decision_id=name,
        instance=None if serving.options.shadow else best.instance,
        would_choose=best.instance,
        source=why,  # type: ignore[arg-type]
        scores=[None] * count,
        probabilities=[None] * count,
        predicted=[Predicted(ttft_ms=None, tpot_ms=None)] * count,
        explored=False,
        artifact_version=serving.version,
    )


def _predicted(answer: Answer) -> list[Predicted]:
    return [
        Predicted(ttft_ms=ttft_ms, tpot_ms=tpot_ms)
        for ttft_ms, tpot_ms in (_finite(pair) for pair in answer.predicted_ms.tolist())
    ]


def _finite(values: list[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]


def _outcome(row: OutcomeRow) -> Outcome:
    def known(value: Any) -> float:
        return math.nan if value is None else float(value)

    return Outcome(
        request_id=row.decision_id,
        chosen=row.instance,
        ttft_ms=known(row.ttft_ms),
        tpot_ms=known(row.tpot_ms),
        e2e_ms=known(row.e2e_ms),
        output_tokens=-1 if row.output_tokens is None else row.output_tokens,
        status=row.status,
    )
