"""The policy table of a closed-loop replay: its columns, by name, and which of them stand where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from lodestar.reports.grids import Cell, Column, Grid, Mark
from lodestar.reports.numbers import decimals, interval, number, percent
from lodestar.reports.result import LatencyName, MeanDifference, Policy, QuantileName, Result

__all__ = ["FULL", "NARROW", "WIDE", "policy_grid", "policy_notes"]

PATH_DEPENDENT_RATIO: Final = 0.1  # a spread of the mean over seeds that one replay must not hide

WIDE: Final = (
    *("policy", "ttft_mean", "ttft_p50", "ttft_p90", "ttft_p99", "difference"),
    *("tpot_mean", "e2e_mean", "hits", "slo"),
)
NARROW: Final = (
    ("policy", "ttft_mean", "ttft_p50", "ttft_p90", "ttft_p99", "difference"),
    ("policy", "tpot_mean", "tpot_p99", "e2e_mean", "e2e_p99", "hits", "slo"),
)
FULL: Final = (
    *("policy", "ttft_mean", "ttft_p50", "ttft_p90", "ttft_p99", "difference"),
    *("tpot_mean", "tpot_p99", "e2e_mean", "e2e_p99"),
    *("hits_and_belief", "slo", "imbalance", "spread"),
)


def policy_grid(result: Result, columns: Sequence[str] = FULL) -> Grid:
    """Return one row a policy and the named columns."""
    return Grid(
        f"{result['estimand']}: {number(result['requests'])} requests, {result['instances']} instances, "
        f"{result['seeds']} seeds",
        [_COLUMNS[name](result) for name in columns],
        policy_notes(result),
    )


def policy_notes(result: Result) -> list[str]:
    """Return the sentences that a reader of the policy table needs."""
    slo = result["slo"]
    limits = [f"{latency.removesuffix('_ms').upper()} ≤ {number(limit)} ms" for latency, limit in slo.items()]
    notes = [
        "Second line: 95 % interval of the mean.",
        f"Difference: policy − {result['baseline']} on the same requests and seeds; below 0 is faster.",
        f"SLO: {' and '.join(limits)}.",
    ]
    for policy in filter(_is_path_dependent, result["policies"]):
        spread = percent(policy["spread_over_seeds"], 0)
        notes.append(f"{policy['policy']} depends on its path: its mean TTFT spreads {spread} % over the seeds.")
    return notes


def _is_path_dependent(policy: Policy) -> bool:
    spread = policy["spread_over_seeds"]
    return spread is not None and spread > PATH_DEPENDENT_RATIO


def _names(result: Result) -> Column:
    baseline = result["baseline"]
    cells = [Cell(p["policy"], "baseline" if p["policy"] == baseline else "") for p in result["policies"]]
    return Column("policy", "", cells, left=True)


def _means(latency: LatencyName, title: str, result: Result) -> Column:
    latencies = [policy[latency] for policy in result["policies"]]
    places = decimals([found["mean"] for found in latencies])
    best = min((found["mean"] for found in latencies if found["mean"] is not None), default=-1.0)
    cells = [
        Cell(number(found["mean"], places), interval(found["ci95"], places), "best" if found["mean"] == best else "")
        for found in latencies
    ]
    return Column(title, "ms", cells)


def _quantiles(latency: LatencyName, quantile: QuantileName, title: str, result: Result) -> Column:
    return _values(title, "ms", [policy[latency][quantile] for policy in result["policies"]], min)


def _differences(result: Result) -> Column:
    found = [policy["difference"] for policy in result["policies"]]
    means = [None if difference is None else difference["ttft_ms"] for difference in found]
    places = decimals([mean["mean"] for mean in means if mean is not None], figures=3)
    return Column("TTFT difference", "ms", [_difference(mean, places) for mean in means])


def _difference(found: MeanDifference | None, places: int) -> Cell:
    if found is None or found["ci95"] is None:
        return Cell(number(None))
    low, high = found["ci95"]
    mark: Mark = "good" if high < 0 else "bad" if low > 0 else ""
    return Cell(number(found["mean"], places, signed=True), interval(found["ci95"], places, signed=True), mark)


def _ratios(key: Callable[[Policy], float], title: str, unit: str, result: Result) -> Column:
    return _values(title, unit, [100 * key(policy) for policy in result["policies"]], max, places=1)


def _hits_and_belief(result: Result) -> Column:
    """The cache's own hits, and below them what the router expected of its index."""
    hits = _COLUMNS["hits"](result)
    expected = [f"router {percent(policy['router_hit_ratio'])}" for policy in result["policies"]]
    return replace(hits, cells=[replace(cell, note=note) for cell, note in zip(hits.cells, expected, strict=True)])


def _spreads(result: Result) -> Column:
    cells = [
        Cell(percent(p["spread_over_seeds"]), mark="bad" if _is_path_dependent(p) else "") for p in result["policies"]
    ]
    return Column("spread over seeds", "%", cells)


def _imbalance(result: Result) -> Column:
    values = [policy["inflight_imbalance"] for policy in result["policies"]]
    return _values("in-flight imbalance", "", values, min, places=2)


def _values(
    title: str,
    unit: str,
    values: Sequence[float | None],
    best: Callable[[list[float]], float],
    places: int | None = None,
) -> Column:
    places = decimals(values) if places is None else places
    texts = [number(value, places) for value in values]
    known = [value for value in values if value is not None]
    top = number(best(known), places) if known else ""
    return Column(title, unit, [Cell(text, mark="best" if text == top else "") for text in texts])


_COLUMNS: Final[dict[str, Callable[[Result], Column]]] = {
    "policy": _names,
    "ttft_mean": partial(_means, "ttft_ms", "TTFT mean"),
    "ttft_p50": partial(_quantiles, "ttft_ms", "p50", "TTFT P50"),
    "ttft_p90": partial(_quantiles, "ttft_ms", "p90", "TTFT P90"),
    "ttft_p99": partial(_quantiles, "ttft_ms", "p99", "TTFT P99"),
    "difference": _differences,
    "tpot_mean": partial(_means, "tpot_ms", "TPOT mean"),
    "tpot_p99": partial(_quantiles, "tpot_ms", "p99", "TPOT P99"),
    "e2e_mean": partial(_means, "e2e_ms", "E2E mean"),
    "e2e_p99": partial(_quantiles, "e2e_ms", "p99", "E2E P99"),
    "hits": partial(_ratios, lambda policy: policy["hit_ratio"], "cache hits", "% tokens"),
    "hits_and_belief": _hits_and_belief,
    "slo": partial(_ratios, lambda policy: policy["slo_attainment"], "SLO", "% met"),
    "imbalance": _imbalance,
    "spread": _spreads,
}
