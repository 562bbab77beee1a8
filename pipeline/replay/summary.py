"""From the outcomes of all policies and seeds to the numbers of a report, with their intervals and their flags."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError
from lodestar.data.log import Workload
from lodestar.pipeline.estimation.intervals.replayed import ENOUGH_SEEDS, replayed_interval
from lodestar.pipeline.estimation.resampling import Resamples, resampled_means, resamples
from lodestar.pipeline.replay.cluster import Outcome
from lodestar.pipeline.replay.comparison import compared_means, compared_tails
from lodestar.pipeline.replay.flags import flags_of, stability_of
from lodestar.pipeline.replay.state import CANCELLED, LOST
from lodestar.pipeline.replay.window import WARMUP_RATIO, Window, window_of

__all__ = ["LATENCIES", "Slo", "distribution", "summary"]

Floats = NDArray[np.float64]

LATENCIES: Final = ("ttft_ms", "tpot_ms", "e2e_ms")
_BLOCKS: Final = 20  # few enough that each spans far more than a queue's memory
_DRAWS: Final = 1000
_ENOUGH_FOR_SEVERAL: Final = 5  # of 3, widened intervals of 9 policies hold at once 84 % of the time, of 2, 55 %
#: What stands in the place of intervals and ranks where one seed was replayed.
ONE_SEED: Final = (
    f"no intervals and no ranks: one seed does not tell how far off the next would be; take --seeds {ENOUGH_SEEDS} or "
    "more"
)


@dataclass(frozen=True, slots=True)
class Slo:
    """The latencies that a request must not exceed, in milliseconds."""

    ttft_ms: float = 2000.0
    tpot_ms: float = 200.0

    def __post_init__(self) -> None:
        """Refuse what no request can meet."""
        if not 0 < self.ttft_ms < math.inf:
            raise ConfigError(
                f"--slo-ttft-ms is {self.ttft_ms:g}; expected more than 0, as no request is that fast, and less than "
                "infinite, which every request meets. Leave it out for the default"
            )


def summary(
    outcomes: Mapping[str, list[Outcome]],
    workload: Workload,
    baseline: str,
    slo: Slo | None = None,
    warmup_ratio: float = WARMUP_RATIO,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the window, the row of each policy, and how sure their order is.

    Every number is over the same requests for every policy and seed, and over those of them that have the value. Of one
    seed there are no intervals and no ranks.

    Args:
        outcomes: policy → its runs, the same seeds in the same order for all.
        workload: what was replayed.
        baseline: the policy that the others are compared with.
        slo: latency targets.
        warmup_ratio: share of the requests, from the first on, that is left out.
        seed: of the bootstrap draws.
    """
    window = window_of(workload, warmup_ratio)
    seeds = len(outcomes[baseline])
    drawn = resamples(seeds, window.requests, -(-window.requests // _BLOCKS), _DRAWS, seed)
    rows = {name: _row(name, runs, workload, window, slo or Slo()) for name, runs in outcomes.items()}
    differences: dict[str, dict[str, Any]] = {name: {"baseline": baseline} for name in outcomes if name != baseline}
    ranks: list[dict[str, Any]] = []
    for latency in LATENCIES:
        values = {name: _stacked(runs, latency, window) for name, runs in outcomes.items()}
        for name, row in rows.items():
            row[latency] = _latency(values[name], drawn)
        for name, found in compared_means(values, baseline, drawn).items():
            differences[name][latency] = found
        if latency == "ttft_ms":
            tails, ranks = compared_tails(values, baseline, drawn)
            for name, found in tails.items():
                differences[name]["ttft_ms_p99"] = found
    for name, row in rows.items():
        row |= {"flags": flags_of(row, seeds), "difference": differences.get(name)}
    described = _described(drawn, seeds, len(outcomes))
    return {"window": window.to_dict(), "intervals": described, "policies": list(rows.values()), "ranks": ranks}


def distribution(values: Floats) -> dict[str, float | None]:
    """Return mean and quantiles of the values that are there; None each where there are none.

    >>> distribution(np.append(np.arange(101.0), np.nan))
    {'mean': 50.0, 'p50': 50.0, 'p90': 90.0, 'p99': 99.0}
    """
    there = values[~np.isnan(values)]
    if not len(there):
        return dict.fromkeys(("mean", "p50", "p90", "p99"))
    p50, p90, p99 = np.quantile(there, [0.5, 0.9, 0.99])
    return {"mean": float(there.mean()), "p50": float(p50), "p90": float(p90), "p99": float(p99)}


def _stacked(runs: list[Outcome], name: str, window: Window) -> Floats:
    """Return seeds × requests of the window."""
    return np.stack([getattr(run, name)[window.rows] for run in runs])


def _latency(values: Floats, drawn: Resamples) -> dict[str, Any]:
    found = distribution(values.ravel())
    means = None if found["mean"] is None else resampled_means(values, drawn)
    interval = None if means is None else replayed_interval(means, drawn, least=0.0)
    return {**found, "ci95": interval and list(interval)}


def _row(policy: str, runs: list[Outcome], workload: Workload, window: Window, slo: Slo) -> dict[str, Any]:
    """Return what is not a latency: hits, SLO, balance, what was not served, stability."""
    ttft, tpot, e2e = (_stacked(runs, name, window) for name in LATENCIES)
    status = np.stack([run.status[window.rows] for run in runs])
    started = ~np.isnan(ttft)
    prompt_tokens = (workload.prompt_tokens[window.rows] * started).sum()
    met = (ttft <= slo.ttft_ms) & ~(tpot > slo.tpot_ms) & ~np.isnan(e2e)
    return {
        "policy": policy,
        **dict.fromkeys(LATENCIES),  # filled in later; here for their place
        "hit_ratio": _share(_stacked(runs, "cached_tokens", window)[started].sum(), prompt_tokens),
        "router_hit_ratio": _share(_stacked(runs, "router_hit_tokens", window)[started].sum(), prompt_tokens),
        "slo_attainment": float(met.mean()),
        "cancelled_ratio": float((status == CANCELLED).mean()),
        "lost_ratio": float((status == LOST).mean()),
        "inflight_imbalance": float(np.mean([run.imbalance for run in runs])),
        **stability_of(runs, workload, window),
    }


def _described(drawn: Resamples, seeds: int, policies: int) -> dict[str, Any]:
    """Say what the intervals are of, for the reader of the result."""
    blocks = drawn.starts.shape[1]
    how = (
        f"95 % from {len(drawn.starts)} bootstrap draws of {seeds} seeds and {blocks} blocks of {drawn.block} "
        "consecutive requests, the same draws for all policies"
    )
    how += f"; widened, as {seeds} seeds are few: --seeds {ENOUGH_SEEDS} or more" if seeds < ENOUGH_SEEDS else ""
    if policies > 2:
        how += f"; those of differences hold for all {policies - 1} policies at once"
        how += f", but too seldom of fewer than {_ENOUGH_FOR_SEVERAL} seeds" if seeds < _ENOUGH_FOR_SEVERAL else ""
    how = how if seeds > 1 else ONE_SEED
    return {"draws": len(drawn.starts), "blocks": blocks, "block_requests": drawn.block, "how": how}


def _share(part: np.int64, whole: np.int64) -> float:
    return float(part / whole) if whole else 0.0
