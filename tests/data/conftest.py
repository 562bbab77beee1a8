"""Real logs ingested once a session, and small logs made by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lodestar.data import schema as s
from lodestar.data.conversations import numbered_sessions
from lodestar.data.ingest import IngestReport, ingest
from lodestar.data.log import RequestLog
from lodestar.data.store import load_log, open_store
from lodestar.data.workspace import Workspace

REAL = {
    **{
        f"{load}-{arm}": f"lodestar/{load}/{arm}.csv.gz"
        for load in ("sharing09", "sharing47")
        for arm in ("random", "prefix", "rl")
    },
    "klog-prefix": "lodestar/sharing09/prefix.klog.gz",
    "klog-rl": "lodestar/sharing09/rl.klog.gz",
    "klog-2026": "lodestar/gateway-2026-04.klog",
    "mooncake": "mooncake/conversation_trace.jsonl.gz",
    "azure": "azure/AzureLLMInferenceTrace_conv.csv.gz",
    "sessions": "weka/trace_0002.json.gz",
    "spans": "vllm-otel/codellama-34b-prefill.otlp.json.gz",
    "statistics": "vllm-otel/codellama-34b-prefill.vllm.log.gz",
}


@pytest.fixture(scope="session")
def ingested(traces: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, dict[str, IngestReport]]:
    """A workspace with every real log as a dataset, and what ingest said of each."""
    workspace = Workspace.open(tmp_path_factory.mktemp("real"))
    return workspace, {name: ingest(workspace, [traces / file], name) for name, file in REAL.items()}


@pytest.fixture(scope="session")
def real_log(ingested: tuple[Workspace, dict[str, IngestReport]]) -> Callable[[str], RequestLog]:
    workspace, _ = ingested

    def load(name: str) -> RequestLog:
        with open_store(workspace) as con:
            return load_log(con, name)

    return load


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "home")


def make_log(n: int = 20, m: int = 3, seed: int = 0) -> RequestLog:
    """A small log with every field that the native format can hold."""
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.ones(m), n)
    share[:, -1] = 1 - share[:, :-1].sum(axis=1)
    chosen = rng.integers(0, m, n)
    blocks = rng.integers(0, 4, n)
    session = numbered_sessions(np.random.default_rng(seed + 1).integers(-1, 5, n))
    return RequestLog(
        dataset="made",
        instances=[f"pod-{j}" for j in range(m)],
        request_id=[f"r{i}" for i in range(n)],
        arrived_at_s=np.concatenate([[0.0], np.cumsum(rng.exponential(0.3, n - 1))]),
        prompt_tokens=rng.integers(100, 5000, n),
        output_tokens=rng.integers(2, 300, n),
        chosen=chosen,
        propensity=share[np.arange(n), chosen],
        policy="soft",
        candidate=np.ones((n, m), dtype=np.bool_),
        snapshot={name: rng.random((n, m)) for name in s.SNAPSHOT_FIELDS},
        probability=share,
        ttft_ms=rng.uniform(50, 900, n),
        tpot_ms=rng.uniform(5, 90, n),
        e2e_ms=rng.uniform(1000, 9000, n),
        block_ids=rng.integers(0, 2**62, int(blocks.sum())),
        block_offsets=np.concatenate([[0], np.cumsum(blocks)]).astype(np.int64),
        block_tokens=16,
        session=session,
    )


@pytest.fixture
def made_log() -> Callable[..., RequestLog]:
    return make_log
