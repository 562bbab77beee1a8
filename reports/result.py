"""The result of a replay as it lies on disk: ``result.json`` and where the newest one is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Literal, NotRequired, TypedDict, cast

from lodestar.data.errors import ArtifactError, ConfigError
from lodestar.data.workspace import Workspace

__all__ = [
    "LATENCIES",
    "QUANTILES",
    "Difference",
    "Engine",
    "Gate",
    "Intervals",
    "Latency",
    "LatencyName",
    "MeanDifference",
    "Measured",
    "MeasuredOrder",
    "OneStep",
    "Policy",
    "QuantileName",
    "Quantiles",
    "QueueGrowth",
    "Range",
    "Rank",
    "Result",
    "TailDifference",
    "Trust",
    "Window",
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


class TailDifference(TypedDict):
    """P99 of the policy minus P99 of the baseline, in ms."""

    value: float | None
    ci95: list[float] | None


class Difference(TypedDict):
    """How one policy differs from the baseline; the intervals of all policies hold at once."""

    baseline: str
    ttft_ms: MeanDifference
    ttft_ms_p99: NotRequired[TailDifference]
    tpot_ms: MeanDifference
    e2e_ms: MeanDifference


class Range(TypedDict):
    """The means of the seeds, in ms."""

    min: float
    median: float
    max: float


class QueueGrowth(TypedDict):
    """How fast the requests in flight grow, and in how many seeds that is more than chance."""

    requests_per_min: float
    over_seeds: list[float]
    growing_seeds: int


class Policy(TypedDict):
    """One policy, replayed; `flags` are sentences that its numbers must not be read without."""

    policy: str
    ttft_ms: Latency
    tpot_ms: Latency
    e2e_ms: Latency
    hit_ratio: float
    router_hit_ratio: float
    slo_attainment: float
    inflight_imbalance: float
    spread_over_seeds: float | None
    cancelled_ratio: NotRequired[float]
    lost_ratio: NotRequired[float]
    queue_growth: NotRequired[QueueGrowth | None]
    unstable: NotRequired[bool]
    path_dependent: NotRequired[bool]
    over_seeds: NotRequired[dict[LatencyName, Range | None]]
    flags: NotRequired[list[str]]
    difference: Difference | None


class Window(TypedDict):
    """Which requests the numbers are over."""

    warmup_ratio: float
    warmup_requests: int
    requests: int
    from_s: float
    why: str


class Intervals(TypedDict):
    """What the intervals are drawn from."""

    draws: int
    blocks: int
    block_requests: int
    how: str


class Rank(TypedDict):
    """How probable each rank of one policy is, from the first to the last."""

    policy: str
    by_ttft_mean: list[float]
    first_by_ttft_p99: float


class Gate(TypedDict):
    """One trust gate: what was measured against its limit."""

    name: str
    value: float | None
    limit: float | None
    passed: bool
    noise_floor: NotRequired[float | None]
    why: NotRequired[str]


class Trust(TypedDict):
    """Whether the closed-loop numbers may be acted on, and why."""

    verdict: str
    reasons: list[str]
    gates: list[Gate]
    notes: NotRequired[list[str]]


class OneStep(TypedDict):
    """One policy valued by one estimator on logged states."""

    policy: str
    estimator: str
    value_ms: float
    se_ms: float
    ci95_ms: NotRequired[list[float]]
    lambda_: NotRequired[float | str | None]
    notes: NotRequired[list[str]]
    estimand: str


class Measured(TypedDict):
    """One policy, replayed, beside what was measured in another dataset of the same traffic.

    Hit ratios are the routers' belief of the instances they chose; `predicted_one_run95_ms` is where one further run of
    the replay falls. What is 'hits_known' has prefix groups that the hits of the other dataset tell as well.
    """

    policy: str
    measured_dataset: str
    requests: NotRequired[int]
    ttft_ms: Quantiles
    predicted_ttft_ms: Quantiles
    predicted_one_run95_ms: NotRequired[dict[QuantileName, list[float] | None]]
    error_mean: float | None
    error_p50: NotRequired[float | None]
    error_p90: NotRequired[float | None]
    error_p99: float | None
    predicted_mean_hits_known_ms: NotRequired[float | None]
    error_mean_hits_known: NotRequired[float | None]
    groups_matter: NotRequired[bool]
    router_hit_ratio: NotRequired[float | None]
    predicted_router_hit_ratio: NotRequired[float | None]
    predicted_hit_ratio: NotRequired[float | None]
    unanswered_ratio: NotRequired[float]
    one_step_snipw_ms: NotRequired[float | None]
    one_step_snipw_error: NotRequired[float | None]


class MeasuredOrder(TypedDict):
    """The arms by mean TTFT, slowest first, as they were measured and as their own choices were replayed."""

    measured: list[str]
    predicted: list[str]
    measured_ms: dict[str, float]
    predicted_ms: dict[str, float]
    requests: int
    right: bool
    wrong_pairs: list[list[str]]


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
    window: NotRequired[Window]
    intervals: NotRequired[Intervals]
    policies: list[Policy]
    ranks: NotRequired[list[Rank]]
    one_step: list[OneStep]
    one_step_notes: NotRequired[list[str]]
    one_step_blocks: NotRequired[int]
    one_step_differences: NotRequired[list[dict[str, Any]]]
    one_step_tails: NotRequired[list[dict[str, Any]]]
    one_step_diagnostics: NotRequired[list[dict[str, Any]]]
    derivatives: NotRequired[list[dict[str, Any]]]
    gap: NotRequired[list[dict[str, Any]]]
    gap_notes: NotRequired[list[str]]
    test: NotRequired[dict[str, Any] | None]
    measured: NotRequired[list[Measured]]
    measured_order: NotRequired[MeasuredOrder | None]
    cluster: NotRequired[dict[str, Any]]
    sweep: NotRequired[list[dict[str, Any]]]
    tuning: NotRequired[list[dict[str, Any]]]
    tuning_how: NotRequired[dict[str, Any]]
    recorded: NotRequired[list[str]]
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
