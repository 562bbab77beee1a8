"""From the outcomes of all seeds to the numbers of a report, with their intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.replay.cluster import Outcome
from lodestar.pipeline.replay.intervals import block_bootstrap_mean, paired_difference

__all__ = ["LATENCIES", "Slo", "compare", "distribution", "summarise"]

Floats = NDArray[np.float64]

LATENCIES: Final = ("ttft_ms", "tpot_ms", "e2e_ms")
_BLOCKS: Final = 25  # enough to bootstrap; each then spans far more than a queue's memory
_DRAWS: Final = 1000


@dataclass(frozen=True, slots=True)
class Slo:
    """The latencies that a request must not exceed, in milliseconds."""

    ttft_ms: float = 2000.0
    tpot_ms: float = 200.0


def distribution(values: Floats) -> dict[str, float | None]:
    """Return mean and quantiles; None each where there are no values.

    >>> distribution(np.arange(101.0))
    {'mean': 50.0, 'p50': 50.0, 'p90': 90.0, 'p99': 99.0}
    """
    if not len(values):
        return dict.fromkeys(("mean", "p50", "p90", "p99"))
    p50, p90, p99 = np.quantile(values, [0.5, 0.9, 0.99])
    return {"mean": float(values.mean()), "p50": float(p50), "p90": float(p90), "p99": float(p99)}


def _stacked(outcomes: list[Outcome], name: str) -> Floats:
    """Return seeds × requests, without the requests that have no such value in any seed."""
    stacked = np.stack([getattr(outcome, name) for outcome in outcomes])
    return stacked[:, ~np.isnan(stacked[0])]


def _block(requests: int) -> int:
    return max(1, requests // _BLOCKS)


def summarise(policy: str, outcomes: list[Outcome], prompt_tokens: NDArray[np.int64], slo: Slo) -> dict[str, Any]:
    """Return one policy's row: pooled distributions over seeds, the interval of each mean, hits, SLO, balance."""
    row: dict[str, Any] = {"policy": policy}
    for name in LATENCIES:
        values = _stacked(outcomes, name)
        interval = list(block_bootstrap_mean(values, _block(values.shape[1]), _DRAWS)) if values.size else None
        row[name] = {**distribution(values.ravel()), "ci95": interval}
    ttft, tpot = (np.stack([getattr(outcome, name) for outcome in outcomes]) for name in ("ttft_ms", "tpot_ms"))
    means = ttft.mean(axis=1)
    row["hit_ratio"] = float(_stacked(outcomes, "cached_tokens").mean(axis=0).sum() / prompt_tokens.sum())
    row["router_hit_ratio"] = float(_stacked(outcomes, "router_hit_tokens").mean(axis=0).sum() / prompt_tokens.sum())
    row["slo_attainment"] = float(((ttft <= slo.ttft_ms) & ~(tpot > slo.tpot_ms)).mean())
    row["inflight_imbalance"] = float(np.mean([outcome.imbalance for outcome in outcomes]))
    row["spread_over_seeds"] = float(means.std(ddof=1) / means.mean()) if len(means) > 1 else 0.0
    return row


def compare(outcomes: Mapping[str, list[Outcome]], policy: str, baseline: str) -> dict[str, Any] | None:
    """Return a policy's mean differences to the baseline, request by request and seed by seed."""
    if policy == baseline:
        return None
    row: dict[str, Any] = {"baseline": baseline}
    for name in LATENCIES:
        ours, theirs = _stacked(outcomes[policy], name), _stacked(outcomes[baseline], name)
        if not ours.size:
            row[name] = {"mean": None, "ci95": None}
            continue
        difference = paired_difference(ours, theirs, _block(ours.shape[1]), _DRAWS)
        row[name] = {"mean": difference.mean, "ci95": list(difference.ci95)}
    return row
