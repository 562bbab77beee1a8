"""What was measured, as tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import polars as pl
from scipy.stats import t as student

__all__ = ["BASE", "KEY", "accuracy_table", "closed_loop", "overall", "surface_table", "table", "verdict"]

BASE: Final = "ms"
#: Column → heading, unit of the change from `BASE`.
COSTS: Final = {
    "mean_ms": "mean TTFT",
    "p99_ms": "P99 TTFT",
    "regret_ms": "regret, own states",
    "logged_regret_ms": "regret, random states",
    "mae_ms": "MAE",
}
SCORES: Final = {
    "ranking": "ranking, own states",
    "logged_ranking": "ranking, random states",
    "r2_log": "R² of log TTFT",
}
KEY: Final = ["workload", "load", "logger"]


def compared(frame: pl.DataFrame, way: str, base: str = BASE) -> dict[str, tuple[float, float, float]]:
    """Return each figure's difference to another way, with a 95 % interval over cells.

    Costs are compared by the logarithm of their ratio, seed by seed, then averaged over seeds; the interval is that
    of Student's t over the cells.
    """
    mine, others = (frame.filter(pl.col("way") == each).sort(*KEY, "seed") for each in (way, base))
    pairs = mine.select(*KEY).with_columns(
        *[(mine[name] / others[name]).log().alias(name) for name in COSTS],
        *[(mine[name] - others[name]).alias(name) for name in SCORES],
    )
    by_cell = pairs.group_by(KEY, maintain_order=True).mean()
    found = {}
    for name in (*COSTS, *SCORES):
        values = by_cell[name].to_numpy()
        half = float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
        found[name] = (float(values.mean()), float(values.mean()) - half, float(values.mean()) + half)
    return found


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    lines = [list(head), *(list(map(str, row)) for row in rows)]
    lines.insert(1, ["---"] + ["---:"] * (len(lines[0]) - 1))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def overall(frame: pl.DataFrame, ways: Iterable[str], base: str = BASE) -> str:
    """Return the differences of several ways to one, over all cells."""
    rows = []
    for way in ways:
        found = compared(frame, way, base)
        costs = [_percent(*found[name]) for name in COSTS]
        scores = ["{:+.3f} ({:+.3f} to {:+.3f})".format(*found[name]) for name in SCORES]
        rows.append((f"`{way}`", *costs, *scores))
    return table(("", *COSTS.values(), *SCORES.values()), rows)


def _percent(mean: float, low: float, high: float) -> str:
    return f"{np.expm1(mean):+.1%} ({np.expm1(low):+.1%} to {np.expm1(high):+.1%})"


def closed_loop(frame: pl.DataFrame, figure: str, columns: Sequence[str]) -> str:
    """Return a figure of every way and mark by workload and load, in ms, averaged over loggers and seeds."""
    means = frame.group_by("workload", "load", "way", maintain_order=True).agg(pl.col(figure).mean())
    rows = []
    for (workload, load), group in means.group_by("workload", "load", maintain_order=True):
        of = dict(group.select("way", figure).iter_rows())
        rows.append((f"{workload}, {load:.0%}", *(f"{of[way]:,.0f}" for way in columns)))
    return table(("", *columns), rows)


def verdict(frame: pl.DataFrame, ways: Iterable[str]) -> str:
    """Say what is better than the base beyond doubt, and at what."""
    lines = []
    for name in ways:
        found = compared(frame, name)
        better = [COSTS[cost] for cost in COSTS if found[cost][2] < 0.0]
        better += [SCORES[score] for score in SCORES if found[score][1] > 0.0]
        worse = [COSTS[cost] for cost in COSTS if found[cost][1] > 0.0]
        worse += [SCORES[score] for score in SCORES if found[score][2] < 0.0]
        lines.append(
            f"- `{name}`: better at {', '.join(better) or 'nothing'}; worse at {', '.join(worse) or 'nothing'}."
        )
    return "\n".join(lines) + "\n"


def accuracy_table(lines: Sequence[dict[str, Any]]) -> str:
    """Return MAE (ms) and R² of log TTFT of every way, a line a log."""
    ways, logs = (list(dict.fromkeys(line[of] for line in lines)) for of in ("way", "log"))
    of = {(line["log"], line["way"]): f"{line['mae_ms']:,.0f} / {line['r2_log']:.3f}" for line in lines}
    return table(("", *ways), ((log, *(of.get((log, way), "") for way in ways)) for log in logs))


def surface_table(lines: Sequence[dict[str, Any]]) -> str:
    """Return over all load slices, a line a log and step: the share of rows that fall, and the worst fall."""
    surfaces = list(dict.fromkeys(line["surface"] for line in lines))
    of: dict[tuple[str, str], dict[str, str]] = {}
    for line in (line for line in lines if line["waiting_requests"] == "all"):
        told = f"{line['falls']:.1%}, {line['worst_fall_ms']:,.0f} ms ({line['worst_fall_ratio']:.1%})"
        of.setdefault((line["log"], line["step"]), {})[line["surface"]] = told if line["falls"] else "none"
    rows = ((f"{log}, {step}", *(its[surface] for surface in surfaces)) for (log, step), its in of.items())
    return table(("", *surfaces), rows)
