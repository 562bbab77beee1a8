"""A small server with llm-d's routes over models that were trained on rows of llm-d, and a client."""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections.abc import Mapping
from typing import Any

import httpx
import numpy as np
from starlette.applications import Starlette

from lodestar.features.definitions import FEATURES
from lodestar.models.fit import fit
from lodestar.models.latency import LatencyModel
from lodestar.models.online.brain import Brain
from lodestar.models.online.finished import Finished
from lodestar.models.online.llm_d_rows import INPUT_KEYS, llm_d_features
from lodestar.models.parameters import Parameters
from lodestar.models.rows import Rows
from lodestar.models.serving import Decider
from lodestar.pipeline.serve.llm_d_contract import ModelText, Objective
from lodestar.pipeline.serve.llm_d_routes import llm_d_routes
from lodestar.pipeline.serve.llm_d_window import LlmDWindow


def llm_d_rows(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows as llm-d's client sends them."""
    rng = np.random.default_rng(seed)
    return [
        {
            "kv_cache_percentage": round(float(rng.random()), 3),
            "input_token_length": int(rng.integers(100, 4000)),
            "num_request_waiting": int(rng.integers(0, 6)),
            "num_request_running": int(rng.integers(0, 20)),
            "num_tokens_generated": 1,
            "prefix_cache_score": float(rng.choice([0.0, 0.25, 0.5])),
            "encoder_input_size": 0,
            "encoder_matched_size": 0,
            "prefill_tokens_in_flight": int(rng.integers(0, 10)) * 1500,
            "decode_tokens_in_flight": int(rng.integers(0, 2000)),
        }
        for _ in range(n)
    ]


def columns(rows: list[dict[str, Any]]) -> np.ndarray:
    return np.array([[row.get(key, np.nan) for key in INPUT_KEYS] for row in rows], dtype=np.float64)


def true_ms(rows: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """TTFT is 40 ms + 0.1 ms a token to prefill + 30 ms a waiting request; TPOT is 20 ms + 3 ms a running one."""
    prompt, _, hit, running, waiting, prefill, _ = columns(rows).T
    return 40 + 0.1 * ((1 - hit) * prompt + prefill) + 30 * waiting, 20 + 3 * running


@functools.cache
def trained() -> dict[str, LatencyModel]:
    rows, rng = llm_d_rows(2000), np.random.default_rng(1)
    features, every = llm_d_features(columns(rows)), np.arange(2000)
    made = {}
    for target, ms in zip(("ttft_ms", "tpot_ms"), true_ms(rows), strict=True):
        told = Rows(
            request_index=every,
            features=features,
            latency_ms=ms * np.exp(rng.normal(0, 0.1, 2000)),
            censored=np.zeros(2000, dtype=np.bool_),
            propensity=np.full(2000, np.nan),
            arrived_at_s=every * 0.1,
            finished_at_s=every * 0.1,
            requests=2000,
            excluded={},
        )
        made[target] = fit(told, target, Parameters(rounds=60), seed=0)[0]
    return made


class Served:
    """What the server is to these routes: the trained models, and a list of what came to learn from."""

    def __init__(self, models: Mapping[str, LatencyModel] | None = None, objective: Objective | None = None) -> None:
        self.models = dict(trained() if models is None else models)
        self.objective = objective or Objective()
        self.learning, self.failed_reload = True, ""
        self.learned: list[Finished] = []
        self.llm_d = LlmDWindow()
        self.loaded_at_s: float | None = None
        self.brain: Brain | None = None
        if self.models:
            self.put(self.models)

    def put(self, models: Mapping[str, LatencyModel]) -> None:
        unbounded = np.full(len(FEATURES), np.nan)
        self.models, self.loaded_at_s = dict(models), time.time()
        decider = Decider.of(self.models)
        self.brain = Brain(decider, low=unbounded, high=unbounded, trained_at_s=self.loaded_at_s, version="v1")

    def model_texts(self) -> dict[str, ModelText]:
        return {target: ModelText(model.to_dict(), model.texts()) for target, model in self.models.items()}

    def learn(self, rows: Finished) -> None:
        self.learned.append(rows)

    def forget(self) -> None:
        self.learned.clear()

    def reload(self) -> str | None:
        return self.failed_reload or None

    @property
    def app(self) -> Starlette:
        return Starlette(routes=llm_d_routes(self))


def ask(app: Any, path: str, body: Any = None, method: str | None = None) -> httpx.Response:
    """Call a route in this process; an exception in the app is raised here. `body` is JSON to be, or bytes."""
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()

    async def call() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://router") as client:
            return await client.request(method or ("GET" if body is None else "POST"), path, content=content)

    return asyncio.run(call())
