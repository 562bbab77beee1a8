"""The result of a replay as it lies on disk: ``result.json`` and where the newest one is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final, Literal, NotRequired, TypedDict, cast

from lodestar.data.errors import ArtifactError, ConfigError
from lodestar.data.workspace import Workspace

__all__ = [
    "LATENCIES",
    "QUANTILES",
    "Difference",
    "Engine",
    "Gate",
    "Latency",
    "LatencyName",
    "MeanDifference",
    "Measured",
    "OneStep",
    "Policy",
    "QuantileName",
    "Quantiles",
    "Result",
    "Trust",
    "latest_replay",
    "read_result",
]

LatencyName = Literal["ttft_ms", "tpot_ms", "e2e_ms"]
QuantileName = Literal["mean", "p50", "p90", "p99"]
LATENCIES: Final[tuple[LatencyName, ...]] = ("ttft_ms", "tpot_ms", "e2e_ms")
QUANTILES: Final[tuple[QuantileName, ...]] = ("mean", "p50", "p90", "p99")


class Quantiles(TypedDict):
    """One latency over all requests, in ms."""

    mean: float | None
    p50: float | None
    p90: float | None
    p99: float | None


class Latency(Quantiles):
    """One latency under one policy, in ms; `ci95` is the interval of the mean."""

    ci95: list[float] | None


class MeanDifference(TypedDict):
    """Policy minus baseline on the same requests and seeds, in ms: below 0 is faster."""

    mean: float | None
    ci95: list[float] | None


class Difference(TypedDict):
    """How one policy differs from the baseline."""

    baseline: str
    ttft_ms: MeanDifference
    tpot_ms: MeanDifference
    e2e_ms: MeanDifference


class Policy(TypedDict):
    """One policy, replayed."""

    policy: str
    ttft_ms: Latency
    tpot_ms: Latency
    e2e_ms: Latency
    hit_ratio: float
    router_hit_ratio: float
    slo_attainment: float
    inflight_imbalance: float
    spread_over_seeds: float | None
    difference: Difference | None


class Gate(TypedDict):
    """One trust gate: what was measured against its limit."""

    name: str
    value: float | None
    limit: float | None
    passed: bool


class Trust(TypedDict):
    """Whether the closed-loop numbers may be acted on, and why."""

    verdict: str
    reasons: list[str]
    gates: list[Gate]


class OneStep(TypedDict):
    """One policy valued by one estimator on logged states."""

    policy: str
    estimator: str
    value_ms: float
    se_ms: float
    ess: float
    mean_weight: float
    max_weight: NotRequired[float]
    estimand: str


class Measured(TypedDict):
    """One policy, replayed, beside what was measured in another dataset of the same traffic."""

    policy: str
    measured_dataset: str
    ttft_ms: Quantiles
    predicted_ttft_ms: Quantiles
    error_mean: float
    error_p99: float


class Engine(TypedDict):
    """The engine model that the replay ran on."""

    coefficients: dict[str, object]
    kv_capacity_tokens: float
    source: str
    instances: NotRequired[str]
    fit: NotRequired[dict[str, object] | None]


class Result(TypedDict):
    """``result.json``."""

    dataset: str
    estimand: str
    created_at: str
    baseline: str
    seeds: int
    requests: int
    instances: int
    slo: dict[str, float]
    requests_per_s: NotRequired[float]
    command: NotRequired[str]
    versions: NotRequired[dict[str, str]]
    engine: Engine
    inferred: dict[str, str]
    trust: Trust
    policies: list[Policy]
    one_step: list[OneStep]
    one_step_note: str | None
    measured: NotRequired[list[Measured]]
    model: NotRequired[dict[str, object] | None]


def read_result(replay_dir: Path) -> Result:
    """Read ``result.json`` of a replay."""
    path = replay_dir / "result.json"
    try:
        return cast("Result", json.loads(path.read_text()))
    except FileNotFoundError as error:
        raise ConfigError(f"{replay_dir} has no result.json; expected the directory of a replay") from error
    except json.JSONDecodeError as error:
        raise ArtifactError(f"{path} is not JSON ({error}); run `lodestar replay` again") from error


def latest_replay(workspace: Workspace) -> Path:
    """Return the directory of the newest replay; names begin with their time, so the last one is the newest."""
    found = sorted(path.parent for path in workspace.replays.glob("*/result.json"))
    if not found:
        raise ConfigError(f"no replay in {workspace.replays}; run `lodestar replay DATASET` first")
    return found[-1]
