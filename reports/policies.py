"""The policy table of a closed-loop replay: its columns, by name, and which of them stand where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from lodestar.reports.grids import Cell, Column, Grid, Mark
from lodestar.reports.numbers import decimals, interval, number, percent, within
from lodestar.reports.result import LatencyName, Policy, QuantileName, Result
from lodestar.reports.said import second_line

__all__ = ["FULL", "NARROW", "SLO_HEADING", "WIDE", "policy_grid", "policy_notes", "policy_warnings"]

SLO_HEADING: Final = "TTFT, TPOT SLO"  # of the share of requests that exceed no limit
GROWS: Final = " ↑"  # after a number of a policy whose queue grows

WIDE: Final = (
    *("policy", "ttft_mean", "ttft_p50", "ttft_p90", "ttft_p99", "difference"),
    *("tpot_mean", "e2e_mean", "hits", "slo"),
)
NARROW: Final = (
    ("policy", "ttft_mean", "ttft_p50", "ttft_p90", "ttft_p99", "difference"),
    ("policy", "tpot_mean", "tpot_p99", "e2e_mean", "e2e_p99", "hits", "slo"),
)
_TTFT = (
    *("policy", "ttft_mean", "ttft_p50", "ttft_p90", "ttft_p99", "difference", "tail_difference"),
    *("hits_and_belief", "slo"),
)
_REST = ("policy", "tpot_mean", "tpot_p99", "e2e_mean", "e2e_p99", "imbalance", "spread", "growth")
FULL: Final = (_TTFT, _REST)


def policy_grid(result: Result, columns: Sequence[str] = _TTFT + _REST[1:]) -> Grid:
    """Return one row a policy and the named columns."""
    notes = policy_notes(result)
    if "imbalance" in columns:
        notes.append("In-flight imbalance is over all decisions, those of the warm-up too.")
    return Grid(_title(result), [_COLUMNS[name](result) for name in columns], notes, policy_warnings(result))


def policy_notes(result: Result) -> list[str]:
    """Return the sentences that a reader of the policy table needs."""
    limits = " and ".join(within(latency, limit_ms) for latency, limit_ms in result["slo"].items())
    intervals, window = result.get("intervals"), result.get("window")
    how = intervals["how"] if intervals else "95 % interval of the mean"
    notes = [
        second_line(how),
        f"Difference: policy − {result['baseline']} on the same requests and seeds; below 0 is faster.",
        f"SLO: {limits}; a request without an answer misses it.",
    ]
    if window:
        notes.append(f"Not counted: {window['why']}.")
    if any(map(_is_path_dependent, result["policies"])):
        notes.append("Range: the least and the largest mean of a seed, where one mean would hide that they differ.")
    if any(map(_is_unstable, result["policies"])):
        notes.append(f"{GROWS.strip()} the queue grows; the number is that of this log's length and no other.")
    return notes


def policy_warnings(result: Result) -> list[str]:
    """Return what each policy's numbers must not be read without."""
    return [f"{policy['policy']}: {flag}." for policy in result["policies"] for flag in policy.get("flags", [])]


def _title(result: Result) -> str:
    window = result.get("window")
    counted = f"{number(window['requests'])} of {number(result['requests'])}" if window else number(result["requests"])
    seeds = "one seed" if result["seeds"] == 1 else f"{result['seeds']} seeds"
    of = f"{counted} requests, {result['instances']} instances, {seeds}"
    return f"{result['estimand']}, {result['trust']['verdict']}: {of}"


def _is_path_dependent(policy: Policy) -> bool:
    return policy.get("path_dependent", False)


def _is_unstable(policy: Policy) -> bool:
    return policy.get("unstable", False)


def _grows(policy: Policy) -> str:
    return GROWS if _is_unstable(policy) else ""


def _is_steady(policy: Policy) -> bool:
    return not _is_path_dependent(policy) and not _is_unstable(policy)


def _names(result: Result) -> Column:
    """Name each policy, and under it what holds for every number of its row."""
    verdict = result["trust"]["verdict"]
    cells = []
    for policy in result["policies"]:
        notes = {
            verdict: True,
            "baseline": policy["policy"] == result["baseline"],
            "unstable": _is_unstable(policy),
            "path-dependent": _is_path_dependent(policy),
        }
        under = "\n".join(note for note, holds in notes.items() if holds)
        cells.append(Cell(policy["policy"], under, "bad" if verdict == "untrusted" else ""))
    return Column("policy", "", cells, left=True)


def _means(latency: LatencyName, title: str, result: Result) -> Column:
    means = [policy[latency]["mean"] for policy in result["policies"]]
    places = decimals(means)
    best = _best(means, result, min)
    return Column(title, "ms", [_mean(policy, latency, places, best) for policy in result["policies"]])


def _mean(policy: Policy, latency: LatencyName, places: int, best: float | None) -> Cell:
    """Write a mean and its interval, or the range of the seeds where there is no one mean."""
    found, seeds = policy[latency], policy.get("over_seeds", {}).get(latency)
    if _is_path_dependent(policy) and seeds is not None:
        least_and_most = interval([seeds["min"], seeds["max"]], places)
        return Cell(least_and_most + _grows(policy), f"median {number(seeds['median'], places)}")
    mark: Mark = "best" if found["mean"] is not None and found["mean"] == best else ""
    return Cell(number(found["mean"], places) + _grows(policy), interval(found["ci95"], places), mark)


def _quantiles(latency: LatencyName, quantile: QuantileName, title: str, result: Result) -> Column:
    column = _values(title, "ms", [policy[latency][quantile] for policy in result["policies"]], result, min)
    pairs = zip(column.cells, result["policies"], strict=True)
    return replace(column, cells=[replace(cell, text=cell.text + _grows(policy)) for cell, policy in pairs])


def _differences(result: Result) -> Column:
    found = [policy["difference"] and policy["difference"]["ttft_ms"] for policy in result["policies"]]
    rows = [(each["mean"], each["ci95"]) if each else None for each in found]
    return _difference_column("TTFT difference", rows, result)


def _tail_differences(result: Result) -> Column:
    found = [policy["difference"] and policy["difference"].get("ttft_ms_p99") for policy in result["policies"]]
    rows = [(each["value"], each["ci95"]) if each else None for each in found]
    return _difference_column("P99 TTFT difference", rows, result)


def _difference_column(
    title: str, rows: Sequence[tuple[float | None, list[float] | None] | None], result: Result
) -> Column:
    places = decimals([row[0] for row in rows if row is not None], figures=3)
    cells = [_difference(row, places, policy) for row, policy in zip(rows, result["policies"], strict=True)]
    return Column(title, "ms", cells)


def _difference(row: tuple[float | None, list[float] | None] | None, places: int, policy: Policy) -> Cell:
    value, ci95 = row or (None, None)
    if value is None:
        return Cell(number(None))
    text = number(value, places, signed=True) + _grows(policy)
    if ci95 is None:
        return Cell(text)
    low, high = ci95
    mark: Mark = "good" if high < 0 and _is_steady(policy) else "bad" if low > 0 else ""
    return Cell(text, interval((low, high), places, signed=True), mark)


def _ratios(key: Callable[[Policy], float], title: str, unit: str, result: Result) -> Column:
    return _values(title, unit, [100 * key(policy) for policy in result["policies"]], result, max, places=1)


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


def _growths(result: Result) -> Column:
    cells = []
    for policy in result["policies"]:
        growth = policy.get("queue_growth")
        text = number(growth["requests_per_min"] if growth else None, 1, signed=True)
        under = interval(growth["over_seeds"], 1, signed=True) if growth else ""
        cells.append(Cell(text, under, "bad" if _is_unstable(policy) else ""))
    return Column("queue growth", "requests/min", cells)


def _imbalance(result: Result) -> Column:
    values = [policy["inflight_imbalance"] for policy in result["policies"]]
    return _values("in-flight imbalance", "", values, result, min, places=2)


def _best(values: Sequence[float | None], result: Result, best: Callable[[list[float]], float]) -> float | None:
    """Return the best of the policies that have one value to compare by."""
    pairs = zip(values, result["policies"], strict=True)
    known = [value for value, policy in pairs if value is not None and _is_steady(policy)]
    return best(known) if known else None


def _values(
    title: str,
    unit: str,
    values: Sequence[float | None],
    result: Result,
    best: Callable[[list[float]], float],
    places: int | None = None,
) -> Column:
    places = decimals(values) if places is None else places
    top = _best(values, result, best)
    cells = []
    for value, policy in zip(values, result["policies"], strict=True):
        text = number(value, places)
        mark: Mark = "best" if top is not None and text == number(top, places) and _is_steady(policy) else ""
        cells.append(Cell(text, mark=mark))
    return Column(title, unit, cells)


_COLUMNS: Final[dict[str, Callable[[Result], Column]]] = {
    "policy": _names,
    "ttft_mean": partial(_means, "ttft_ms", "TTFT mean"),
    "ttft_p50": partial(_quantiles, "ttft_ms", "p50", "TTFT P50"),
    "ttft_p90": partial(_quantiles, "ttft_ms", "p90", "TTFT P90"),
    "ttft_p99": partial(_quantiles, "ttft_ms", "p99", "TTFT P99"),
    "difference": _differences,
    "tail_difference": _tail_differences,
    "tpot_mean": partial(_means, "tpot_ms", "TPOT mean"),
    "tpot_p99": partial(_quantiles, "tpot_ms", "p99", "TPOT P99"),
    "e2e_mean": partial(_means, "e2e_ms", "E2E mean"),
    "e2e_p99": partial(_quantiles, "e2e_ms", "p99", "E2E P99"),
    "hits": partial(_ratios, lambda policy: policy["hit_ratio"], "cache hits", "% tokens"),
    "hits_and_belief": _hits_and_belief,
    "slo": partial(_ratios, lambda policy: policy["slo_attainment"], SLO_HEADING, "% met"),
    "imbalance": _imbalance,
    "spread": _spreads,
    "growth": _growths,
}
