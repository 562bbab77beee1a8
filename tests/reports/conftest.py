"""A small replay directory with the layout that `lodestar replay` writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MakeReplay = Callable[..., Path]

SPEED = {"random": 1.0, "prefix-cache-and-load": 0.8, "least-request": 0.9, "lodestar": 0.5}


def latency(values: Floats) -> dict[str, Any]:
    p50, p90, p99 = (float(q) for q in np.quantile(values, [0.5, 0.9, 0.99]))
    mean = float(values.mean())
    return {"mean": mean, "p50": p50, "p90": p90, "p99": p99, "ci95": [mean * 0.97, mean * 1.03]}


def requests_of(policy: str, requests: int, instances: int, random: np.random.Generator) -> pl.DataFrame:
    wave = 1 + 0.5 * np.sin(np.linspace(0, 9, requests))
    ttft_ms = SPEED[policy] * wave * random.lognormal(7.2, 0.9, requests)
    tpot_ms = random.lognormal(3.6, 0.25, requests) * (0.8 + 0.2 * SPEED[policy])
    prompt_tokens = random.integers(500, 9000, requests)
    return pl.DataFrame(
        {
            "policy": policy,
            "request_index": np.arange(requests),
            "arrived_at_s": np.sort(random.uniform(0, requests / 7.0, requests)),
            "instance_index": random.integers(0, instances, requests),
            "prompt_tokens": prompt_tokens,
            "cached_tokens": (prompt_tokens * random.uniform(0, 0.4, requests)).astype(int),
            "ttft_ms": ttft_ms,
            "tpot_ms": tpot_ms,
            "e2e_ms": ttft_ms + 100 * tpot_ms,
        }
    )


def queue_of(policy: str, seconds: float, instances: int, random: np.random.Generator) -> pl.DataFrame:
    times = np.arange(0.0, seconds, 1.0)
    level = np.abs(np.cumsum(random.normal(0, 0.7 * SPEED[policy], (len(times), instances)), axis=0))
    return pl.DataFrame(
        {
            "policy": policy,
            "time_s": np.repeat(times, instances),
            "instance_index": np.tile(np.arange(instances), len(times)),
            "waiting_requests": np.floor(level).ravel(),
            "running_requests": np.full(level.size, 8.0),
        }
    )


def calibration(random: np.random.Generator, rows: int = 400) -> pl.DataFrame:
    parts = []
    for target, middle in (("ttft_ms", 7.0), ("tpot_ms", 3.5)):
        predicted = random.lognormal(middle, 0.8, rows)
        measured = predicted * random.lognormal(0, 0.3, rows)
        columns = {"predicted_ms": predicted, "measured_ms": measured, "waiting_requests": random.poisson(2.0, rows)}
        parts.append(pl.DataFrame({"target": [target] * rows, **columns}))
    return pl.concat(parts)


def stability(name: str, frame: pl.DataFrame, unstable: bool) -> dict[str, Any]:
    """One policy depends on its path; another's queue grows where a test asks for it."""
    depends = name == "prefix-cache-and-load"
    over_seeds = {}
    for latency in ("ttft_ms", "tpot_ms", "e2e_ms"):
        mean = float(frame[latency].to_numpy().mean())
        over_seeds[latency] = {"min": mean * 0.7, "median": mean * 0.9, "max": mean * 1.9}
    means = over_seeds["ttft_ms"]
    flags = ["unstable: the queue grows by 31.4 requests per minute (29.0 to 33.2 over the seeds)"] if unstable else []
    flags += [f"depends on its path: mean TTFT is {means['min']:,.0f} to {means['max']:,.0f} ms"] if depends else []
    per_min = 31.4 if unstable else 0.2
    return {
        "queue_growth": {
            "requests_per_min": per_min,
            "over_seeds": [per_min - 2.4, per_min + 1.8],
            "growing_seeds": 20 * unstable,
        },
        "unstable": unstable,
        "spread_over_seeds": 0.23 if depends else 0.02,
        "path_dependent": depends,
        "over_seeds": over_seeds,
        "flags": flags,
    }


def ranks() -> list[dict[str, Any]]:
    """The fastest policy is first in nine draws of ten."""
    order = sorted(SPEED, key=SPEED.__getitem__)
    rows = [
        {"policy": name, "by_ttft_mean": [0.0, 0.0, 0.0, 0.0], "first_by_ttft_p99": float(name == order[0])}
        for name in SPEED
    ]
    for row in rows:
        place = order.index(row["policy"])
        row["by_ttft_mean"][place] = 0.9 if place < 2 else 1.0
        if place < 2:
            row["by_ttft_mean"][1 - place] = 0.1
    return rows


def policy_row(frame: pl.DataFrame, base: pl.DataFrame, baseline: str, unstable: str | None) -> dict[str, Any]:
    name = frame["policy"][0]
    difference: dict[str, Any] = {"baseline": baseline}
    for column in ("ttft_ms", "tpot_ms", "e2e_ms"):
        mean = float((frame[column] - base[column]).to_numpy().mean())
        difference[column] = {"mean": mean, "ci95": [mean - abs(mean) * 0.1, mean + abs(mean) * 0.1]}
    tails = [float(np.quantile(each["ttft_ms"].to_numpy(), 0.99)) for each in (frame, base)]
    tail = tails[0] - tails[1]
    difference["ttft_ms_p99"] = {"value": tail, "ci95": [tail - 900.0, tail + 900.0]}
    return {
        "policy": name,
        **{column: latency(frame[column].to_numpy()) for column in ("ttft_ms", "tpot_ms", "e2e_ms")},
        "hit_ratio": float(frame["cached_tokens"].sum() / frame["prompt_tokens"].sum()),
        "router_hit_ratio": 0.25,
        "slo_attainment": float((frame["ttft_ms"] <= 2000).to_numpy().mean()),
        "inflight_imbalance": 0.3 * SPEED[name],
        **stability(name, frame, name == unstable),
        "cancelled_ratio": 0.0,
        "lost_ratio": 0.0,
        "difference": None if name == baseline else difference,
    }


def trust(verdict: str) -> dict[str, Any]:
    passed = verdict == "trusted"
    gates = [
        {"name": "forced_ttft_rank_correlation", "value": 0.95, "limit": 0.8, "passed": True},
        {"name": "forced_ttft_mean_error", "value": 0.03 if passed else 0.41, "limit": 0.1, "passed": passed},
    ]
    reasons = {
        "untrusted": ["forced_ttft_mean_error is 0.410, limit 0.1"],
        "not judged": ["the log has no latencies to compare with"],
    }.get(verdict, [])
    return {"verdict": verdict, "reasons": reasons, "gates": [] if verdict == "not judged" else gates}


def measured_rows(policies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All replays beside what another arm measured: that of the second policy, and its choices forced."""
    truth = {key: policies[1]["ttft_ms"][key] * 1.05 for key in ("mean", "p50", "p90", "p99")}
    replayed = {policy["policy"]: policy["ttft_ms"] for policy in policies}
    replayed["choices of prefix-arm"] = policies[1]["ttft_ms"]
    return [
        {
            "policy": name,
            "measured_dataset": "prefix-arm",
            "ttft_ms": truth,
            "predicted_ttft_ms": {key: found[key] for key in truth},
            "error_mean": found["mean"] / truth["mean"] - 1,
            "error_p99": found["p99"] / truth["p99"] - 1,
        }
        for name, found in replayed.items()
    ]


def one_step_rows(policies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "policy": policy["policy"],
            "estimator": estimator,
            "value_ms": policy["ttft_ms"]["mean"] * 0.9,
            "se_ms": 67.0,
            "ess": 371.0,
            "mean_weight": 1.01,
            "max_weight": 7.0,
            "estimand": "one-step, logged states",
        }
        for policy in policies
        for estimator in ("dm", "snipw", "dr")
    ]


def write_replay(
    folder: Path,
    dataset: str = "sharing09",
    verdict: str = "trusted",
    measured: bool = True,
    one_step: bool = True,
    requests: int = 300,
    instances: int = 3,
    unstable: str | None = None,
) -> Path:
    """Write a replay of made-up latencies into `folder` and return it."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(5)
    frames = [requests_of(policy, requests, instances, random) for policy in SPEED]
    policies = [policy_row(frame, frames[0], "random", unstable) for frame in frames]
    pl.concat(frames).write_parquet(folder / "requests.parquet")
    queues = [queue_of(policy, requests / 7.0, instances, random) for policy in SPEED]
    pl.concat(queues).write_parquet(folder / "queue.parquet")
    calibration(random).write_parquet(folder / "calibration.parquet")
    result = {
        "dataset": dataset,
        "estimand": "closed-loop, replayed",
        "created_at": "2026-11-23T20:30:00Z",
        "baseline": "random",
        "seeds": 20,
        "window": {
            "warmup_ratio": 0.05,
            "warmup_requests": requests // 20,
            "requests": requests - requests // 20,
            "from_s": requests / 7.0 / 20,
            "why": f"the first {requests // 20} requests (5%) meet engines that were idle and caches that were empty",
        },
        "intervals": {
            "draws": 1000,
            "blocks": 20,
            "block_requests": 15,
            "how": "95 % from 1000 bootstrap draws of 20 seeds and 20 blocks of 15 consecutive requests",
        },
        "ranks": ranks(),
        "requests": requests,
        "instances": instances,
        "slo": {"ttft_ms": 2000, "tpot_ms": 200},
        "requests_per_s": 104_000.0,
        "engine": {
            "coefficients": {"step_ms": 6.1, "prefill_us_per_token": 118.0, "context_ns_per_token": 27.4},
            "kv_capacity_tokens": 210_000,
            "source": "fitted to sharing09",
            "fit": {"rank_correlation": 0.951, "rows": requests},
        },
        "inferred": {"arrivals": "logged", "blocks": "prefix groups from the hit ratios: 253 groups of 10 requests"},
        "trust": trust(verdict),
        "policies": policies,
        "one_step": one_step_rows(policies) if one_step else [],
        "one_step_notes": [] if one_step else ["the log has no propensities"],
        "model": {"target": "ttft_ms", "trees": 120},
    }
    if measured:
        result["measured"] = measured_rows(policies)
    (folder / "result.json").write_text(json.dumps(result))
    return folder


@pytest.fixture
def make_replay(tmp_path: Path) -> MakeReplay:
    """Writes a replay directory; keyword arguments as in `write_replay`."""

    def make(name: str = "20261123-203000-sharing09", **settings: Any) -> Path:
        return write_replay(tmp_path / "replays" / name, **settings)

    return make
