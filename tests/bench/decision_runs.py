"""One cell: models that differ in how they are fitted, judged by what they choose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from decision_cells import Cell
from decision_truth import true_ttft_ms
from numpy.typing import NDArray
from scipy.stats import rankdata

from lodestar.models.fit import fit
from lodestar.models.latency import LatencyModel
from lodestar.models.metrics import mae_ms, r2_log
from lodestar.models.parameters import Parameters
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.routing.contract import Models

__all__ = ["MARKS", "cell_rows", "rank_correlation"]

Floats = NDArray[np.float64]

#: Policies without a model, replayed beside: who counts requests, and who knows the engines from inside.
MARKS = ("least-request", "oracle-ttft")


def cell_rows(cell: Cell, ways: Mapping[str, Parameters]) -> list[dict[str, Any]]:
    """Return one row a way of fitting, and one a mark."""
    about = {"workload": cell.workload, "load": cell.load, "logger": cell.logger, "seed": cell.seed}
    rows = []
    for name, parameters in ways.items():
        model, _ = fit(cell.train, "ttft_ms", parameters, cell.seed, heads=False)
        rows.append(about | {"way": name} | _closed_loop(cell, model) | _on_states(cell, model))
    for mark in MARKS:
        ttft_ms = cell.test.replay(make_policy(mark), seed=cell.seed).ttft_ms[cell.first :]
        rows.append(about | {"way": mark} | _latencies(ttft_ms))
    return rows


def _closed_loop(cell: Cell, model: LatencyModel) -> dict[str, float]:
    """Let the model route the second half, and look at each of its decisions."""
    outcome = cell.test.replay(make_policy("learned", Models.of(model)), seed=cell.seed, record=True)
    true_ms = true_ttft_ms(cell.test, outcome.instance, cell.seed)[cell.first :]
    of_chosen_ms = np.take_along_axis(true_ms, outcome.instance[cell.first :, None].astype(np.int64), axis=1)[:, 0]
    return _latencies(outcome.ttft_ms[cell.first :]) | {
        "regret_ms": float((of_chosen_ms - true_ms.min(axis=1)).mean()),
        "ranking": rank_correlation(outcome.costs[cell.first :], true_ms),
    }


def _latencies(ttft_ms: Floats) -> dict[str, float]:
    return {"mean_ms": float(ttft_ms.mean()), "p99_ms": float(np.quantile(ttft_ms, 0.99))}


def _on_states(cell: Cell, model: LatencyModel) -> dict[str, float]:
    n, m, k = cell.states.features.shape
    predicted_ms = model.predict(cell.states.features.reshape(-1, k)).reshape(n, m)[cell.first :]
    true_ms = cell.true_ms[cell.first :]
    of_chosen_ms = true_ms[np.arange(len(true_ms)), predicted_ms.argmin(axis=1)]
    rows = cell.states.rows.newer_than(cell.first)
    told_ms = model.predict(rows.features)
    return {
        "logged_regret_ms": float((of_chosen_ms - true_ms.min(axis=1)).mean()),
        "logged_ranking": rank_correlation(predicted_ms, true_ms),
        "mae_ms": mae_ms(rows.latency_ms, told_ms),
        "r2_log": r2_log(rows.latency_ms, told_ms),
    }


def rank_correlation(predicted_ms: Floats, true_ms: Floats) -> float:
    """Return Spearman's correlation within a decision, averaged over decisions; both are of shape (n, m).

    Decisions in which all candidates are predicted alike, or give the same, have none and are left out.
    """
    a, b = (rankdata(each, axis=1) for each in (predicted_ms, true_ms))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    size = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return float(((a * b).sum(axis=1)[size > 0] / size[size > 0]).mean())
