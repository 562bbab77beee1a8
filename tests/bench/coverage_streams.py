"""What share of latencies a stated P90 covers, by load slice, on streams that change half way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from refresh_streams import LOGS, MADE_ROWS, SLOWER, markdown, rows_of_log, slower, traces_folder
from training_store import add_requests

from lodestar.data.schema import TTFT_MS
from lodestar.data.workspace import Workspace
from lodestar.models.dataset import load_training_data
from lodestar.models.fit import fit
from lodestar.models.parameters import Parameters
from lodestar.models.rows import Rows
from lodestar.models.slices import load_slice
from lodestar.models.uncertainty.calibrate import calibrate
from lodestar.models.uncertainty.coverage import coverage_by_slice

__all__ = ["coverage_section"]

FIRST_ROWS = 1200  # that the model is fitted to; the first 400 after them settle the calibration and are not counted
SETTLING_ROWS = 400
LEAST_ROWS = 200  # of a slice that is judged
BOUNDS = (0.88, 0.92)


def coverage_section() -> Iterator[str]:
    """Yield the table: a line a stream and slice."""
    lines: list[list[str]] = []
    with TemporaryDirectory() as folder:
        workspace = Workspace.open(Path(folder))
        if (traces_folder() / "lodestar").is_dir():
            logs = {name: rows_of_log(workspace, name) for name in LOGS}
            for load in ("sharing09", "sharing47"):
                random, prefix, rl = (logs[f"{load}/{arm}"] for arm in ("random", "prefix", "rl"))
                every = _then(_then(random, prefix), rl)
                lines += _lines(f"{load}: random, then rl", _then(random, rl))
                lines += _lines(f"{load}: random, prefix, rl", every)
                lines += _lines(f"{load}: random, prefix, rl, {SLOWER} x slower from the middle on", _changed(every))
        else:
            yield "The real logs are not here: point LODESTAR_TRACES at them.\n"
        add_requests(workspace, 0, MADE_ROWS)
        made = load_training_data(workspace, "made", (TTFT_MS,)).rows[TTFT_MS]
        lines += _lines(f"generated, {SLOWER} x slower from the middle on", _changed(made))
    met = [line[-1] for line in lines].count("met")
    yield (
        f"One model, fitted to the first {FIRST_ROWS} requests and never again: only its calibration follows. Every "
        "quantile is the one that was stated when the request arrived. Counted are the requests from "
        f"{FIRST_ROWS + SETTLING_ROWS} on, in slices of at least {LEAST_ROWS}. Delay: how many requests arrive until "
        "the outcome of one is known, in the median; a change cannot be followed sooner. "
        f"Of {len(lines)} slices, {met} are within {BOUNDS[0]} to {BOUNDS[1]}.\n"
    )
    judged = f"P90 in {BOUNDS[0]}–{BOUNDS[1]}"
    head = ["stream", "delay", "waiting", "requests", "P90, not calibrated", "P50", "P90", "P99", judged]
    yield markdown(head, lines)


def _changed(rows: Rows) -> Rows:
    """Let a stream get slower in the middle of what is counted."""
    first = FIRST_ROWS + SETTLING_ROWS
    return slower(rows, first + (len(rows) - first) // 2)


def _then(before: Rows, after: Rows) -> Rows:
    """Return the stream of one log and, after its last arrival, of another."""
    later_s = before.arrived_at_s[-1] + 1.0 - after.arrived_at_s[0]
    moved = replace(after, arrived_at_s=after.arrived_at_s + later_s, finished_at_s=after.finished_at_s + later_s)
    joined = {
        name: np.concatenate([getattr(before, name), getattr(moved, name)])
        for name in ("features", "latency_ms", "censored", "propensity", "arrived_at_s", "finished_at_s")
    }
    n = len(before) + len(after)
    return Rows(request_index=np.arange(n), requests=n, excluded={}, **joined)


def _lines(stream: str, rows: Rows) -> list[list[str]]:
    position = np.arange(len(rows))
    model, _ = fit(rows.split(FIRST_ROWS)[0], TTFT_MS, Parameters(), 0)
    rest = rows.only(position >= FIRST_ROWS)
    raw_ms = np.exp(model.raw_log_quantiles(rest.features))
    stated_ms, _ = calibrate(model, rest)
    counted = slice(SETTLING_ROWS, None)
    slices, latency_ms = load_slice(rest.features)[counted], rest.latency_ms[counted]
    raw = {line["waiting_requests"]: line for line in coverage_by_slice(slices, latency_ms, raw_ms[counted])}
    delay = np.median(np.searchsorted(rest.arrived_at_s, rest.finished_at_s) - np.arange(len(rest)))
    return [
        [
            stream,
            f"{delay:,.0f}",
            line["waiting_requests"],
            f"{line['rows']:,}",
            f"{raw[line['waiting_requests']]['p90']:.3f}",
            *(f"{line[name]:.3f}" for name in ("p50", "p90", "p99")),
            "met" if BOUNDS[0] <= line["p90"] <= BOUNDS[1] else "missed",
        ]
        for line in coverage_by_slice(slices, latency_ms, stated_ms[counted])
        if line["rows"] >= LEAST_ROWS
    ]
