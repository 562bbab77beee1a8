"""Small logs whose latencies follow a known law, and workspaces that hold them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from lodestar.data.ingest import ingest
from lodestar.data.log import RequestLog
from lodestar.data.native_write import write_decision_log
from lodestar.data.workspace import Workspace
from lodestar.features.definitions import FEATURE_NAMES, FEATURES
from lodestar.models.dataset import TrainingData
from lodestar.models.rows import Rows


def make_log(n: int, seed: int = 0, slower: float = 1.0, first: int = 0) -> RequestLog:
    """TTFT is 40 ms + 0.1 ms a token to prefill + 30 ms a waiting request, times noise of 20 %."""
    rng = np.random.default_rng([seed, first])
    prompt_tokens, chosen = rng.integers(200, 4000, n), rng.integers(0, 3, n)
    prefill_requests, decode_requests = rng.integers(0, 6, (2, n, 3)).astype(np.float64)
    waiting = np.floor(prefill_requests / 2)
    snapshot = {
        "hit_ratio": rng.choice([0.0, 0.25, 0.5], (n, 3)),
        "inflight_requests": prefill_requests + decode_requests,
        "running_requests": prefill_requests + decode_requests - waiting,
        "waiting_requests": waiting,
        "kv_usage_ratio": rng.random((n, 3)),
        "inflight_prefill_requests": prefill_requests,
        "inflight_decode_requests": decode_requests,
        "prefill_tokens": prefill_requests * 1500,
        "decode_tokens": decode_requests * 50,
        "last_access_age_s": rng.exponential(10, (n, 3)),
    }
    at = np.arange(n), chosen
    uncached = (1 - snapshot["hit_ratio"][at]) * prompt_tokens
    physical = 40 + 0.1 * (uncached + snapshot["prefill_tokens"][at]) + 30 * waiting[at]
    ttft_ms = np.round(slower * physical * np.exp(rng.normal(0, 0.2, n)), 3)
    tpot_ms = np.round(slower * (20 + 3 * decode_requests[at]) * np.exp(rng.normal(0, 0.2, n)), 3)
    return RequestLog(
        dataset="made",
        instances=["a", "b", "c"],
        request_id=[f"r{first + i}" for i in range(n)],
        arrived_at_s=1.7e9 + (first + np.arange(n)) * 0.25,
        prompt_tokens=prompt_tokens,
        output_tokens=np.full(n, 20),
        chosen=chosen,
        propensity=np.full(n, 1 / 3),
        policy="random",
        candidate=np.ones((n, 3), dtype=np.bool_),
        snapshot=snapshot,
        probability=np.full((n, 3), 1 / 3),
        ttft_ms=ttft_ms,
        tpot_ms=tpot_ms,
        e2e_ms=ttft_ms + 19 * tpot_ms,
        block_ids=np.empty(0, dtype=np.int64),
        block_offsets=np.zeros(n + 1, dtype=np.int64),
        block_tokens=None,
    )


def make_rows(n: int, seed: int = 0, slower: float = 1.0) -> Rows:
    """Rows whose latency is 40 ms + 0.1 ms a prefill token, times noise of 20 %; each takes 2 s."""
    rng = np.random.default_rng(seed)
    features = rng.uniform(0.0, 5.0, (n, len(FEATURES)))
    tokens = FEATURE_NAMES.index("prefill_tokens")
    features[:, tokens] = rng.uniform(0.0, 9000.0, n)
    latency_ms = slower * (40 + 0.1 * features[:, tokens]) * np.exp(rng.normal(0, 0.2, n))
    arrived_at_s = np.arange(n) * 0.25
    return Rows(
        request_index=np.arange(n),
        features=features,
        latency_ms=latency_ms,
        censored=np.zeros(n, dtype=np.bool_),
        propensity=np.full(n, np.nan),
        arrived_at_s=arrived_at_s,
        finished_at_s=arrived_at_s + 2.0,
        requests=n,
        excluded={},
    )


def data_of(rows: Rows) -> TrainingData:
    ids = [str(i) for i in range(rows.requests)]
    return TrainingData("made", "f" * 64, ids, {"ttft_ms": rows}, {}, {})


@pytest.fixture(scope="session")
def store_with_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store without runs: creating its tables takes seconds, copying it does not."""
    workspace = Workspace.open(tmp_path_factory.mktemp("store"))
    MlflowClient(workspace.tracking_uri).search_experiments()
    return workspace.home / "mlflow.db"


@pytest.fixture(name="make_log")
def _make_log() -> Callable[..., RequestLog]:
    return make_log


@pytest.fixture(name="make_rows", scope="session")
def _make_rows() -> Callable[..., Rows]:
    return make_rows


@pytest.fixture(name="data_of")
def _data_of() -> Callable[[Rows], TrainingData]:
    return data_of


@pytest.fixture
def add_log() -> Callable[[Workspace, RequestLog], None]:
    """Append a log to the dataset 'made' of a workspace."""

    def add(workspace: Workspace, log: RequestLog) -> None:
        path = workspace.home / f"{log.request_id[0]}.jsonl"
        write_decision_log(path, log)
        ingest(workspace, [path], "made")

    return add


@pytest.fixture
def workspace(tmp_path: Path, store_with_tables: Path) -> Workspace:
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(store_with_tables, home / "mlflow.db")
    return Workspace.open(home)
