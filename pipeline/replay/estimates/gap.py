"""Why one step and closed loop differ: the policy's own earlier decisions, and the simulator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.data.log import RequestLog
from lodestar.pipeline.estimation.beyond.control_variate import control_variate
from lodestar.pipeline.estimation.one_step import OneStepInput, direct_values
from lodestar.pipeline.replay.calibration.forced import known_choices
from lodestar.pipeline.replay.cluster import Cluster, Outcome
from lodestar.pipeline.replay.estimates.closed_loop_correction import Correction
from lodestar.pipeline.replay.estimates.one_step import OneStep
from lodestar.pipeline.replay.estimates.simulated_one_step import simulated_ttft_ms
from lodestar.pipeline.replay.logged_policy import named_policy
from lodestar.pipeline.replay.routing.contract import Policy
from lodestar.reports.numbers import number

__all__ = ["gap_rows"]


Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def gap_rows(
    log: RequestLog,
    cluster: Cluster,
    steps: OneStep,
    outcomes: Mapping[str, Sequence[Outcome]],
    summarised: Sequence[Mapping[str, Any]],
    correction: Correction,
    made_by: Policy | None,
    counted: Bools,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Set the one-step value of each policy beside its closed loop, and split what lies between; and notes.

    gap = closed loop − one step = (closed loop − one step in the simulator) + (one step in the simulator − one step).
    The first is what the policy's own earlier decisions do: it meets other queues and caches than the log had. The
    second is the simulator's error in a single step, or luck of the estimate.

    Args:
        log: what was logged, in the rows of the cluster's workload.
        cluster: as it was logged, calibrated.
        steps: the one-step estimates.
        outcomes: policy → its replays in that cluster.
        summarised: one row a policy, as `summary` returns them.
        correction: closed-loop means corrected by how far the replay of the log itself is off.
        made_by: what made the log, if it is known.
        counted: requests that all numbers are over, shape (n,).
    """
    if not steps.scored or steps.inputs.decisions is None:
        return [], []
    estimator = "dr" if steps.inputs.decisions.has_propensities else "dm"
    values = {row["policy"]: row for row in steps.rows if row["estimator"] == estimator}
    simulated, notes = _simulated(log, cluster, steps)
    forced = cluster.replay(forced=known_choices(log))
    closed = {row["policy"]: row for row in summarised}
    own = next((row for name, row in closed.items() if made_by is not None and named_policy(name) == made_by), None)
    rows = []
    for policy, value in values.items():
        row = closed[policy]
        found = {
            "policy": policy,
            "estimator": estimator,
            "one_step_ms": value["value_ms"],
            "one_step_ci95": list(value["ci95_ms"]),
            "closed_loop_ms": row["ttft_ms"]["mean"],
            "closed_loop_ci95": row["ttft_ms"]["ci95"],
            **_split(value["value_ms"], row["ttft_ms"]["mean"], simulated.get(policy)),
            "logged_hit_ratio": _hit_ratio([forced], log, counted),
            "replayed_hit_ratio": row["hit_ratio"],
            "logged_queue_ms": _queue_ms([forced], counted),
            "replayed_queue_ms": _queue_ms(outcomes[policy], counted),
            **_corrected(correction, policy, own),
        }
        rows.append({**found, "sentence": _sentence(found)})
    return rows, [*_reference(log, correction, made_by, counted), *notes]


def _reference(log: RequestLog, correction: Correction, made_by: Policy | None, counted: Bools) -> list[str]:
    """Say how far off the replay of the log itself is: that much of every gap is no policy's doing."""
    if not correction.rows:
        return [correction.note] if correction.note else []
    logged_ms = float(np.nanmean(log.ttft_ms[counted]))
    replayed_ms = logged_ms * correction.rows[0]["raw_ttft_ms"] / correction.rows[0]["corrected_ttft_ms"]
    what = "the logged choices are" if made_by is None else f"{made_by.name} is"
    off = number(replayed_ms - logged_ms, signed=True)
    return [
        f"the log itself: {number(logged_ms)} ms as measured, {number(replayed_ms)} when {what} replayed: {off} ms is "
        "luck of that one run or the simulator's error, and so much of every gap may be too"
    ]


def _corrected(correction: Correction, policy: str, own: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the closed-loop mean after correction, None where nothing was measured to correct by.

    It is to be doubted where caches differ, and where the logging policy depends on its path: the log is one of many.
    """
    row = next((row for row in correction.rows if row["policy"] == policy), None)
    return {
        "ratio": None if row is None else row["corrected_ttft_ms"] / row["raw_ttft_ms"],
        "ratio_corrected_ms": None if row is None else row["corrected_ttft_ms"],
        "ratio_corrected_ci95": None if row is None else row["corrected_ci95"],
        "ratio_doubted": row is not None and bool(row["error_may_differ"] or (own and own["path_dependent"])),
    }


def _simulated(log: RequestLog, cluster: Cluster, steps: OneStep) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the one-step value of every policy by the simulator, alone and corrected by the log."""
    try:
        ttft_ms = simulated_ttft_ms(log, cluster)
    except DataError as error:
        return {}, [f"the gap is not split: {error}"]
    inputs = steps.inputs
    predicted = ttft_ms[inputs.rows][inputs.candidate]
    found, notes = {}, []
    for policy, rows in steps.scored.items():
        simulated = OneStepInput(rows.log, rows.target, predicted)
        try:
            found[policy] = (
                control_variate(simulated).to_dict()
                if rows.log.has_propensities
                else {"simulated": float(direct_values(simulated).mean()), "value": None}
            )
        except DataError as error:
            notes.append(f"the gap of {policy} is not split: {error}")
    return found, notes


def _split(one_step_ms: float, closed_loop_ms: float | None, simulated: Mapping[str, Any] | None) -> dict[str, Any]:
    gap_ms = None if closed_loop_ms is None else closed_loop_ms - one_step_ms
    by_simulator = None if simulated is None else simulated["simulated"] - one_step_ms
    by_feedback = None if gap_ms is None or by_simulator is None else gap_ms - by_simulator
    return {
        "gap_ms": gap_ms,
        "feedback_ms": by_feedback,
        "simulator_ms": by_simulator,
        "simulated_one_step_ms": None if simulated is None else simulated["simulated"],
        "corrected_one_step_ms": None if simulated is None else simulated["value"],
    }


def _hit_ratio(runs: Sequence[Outcome], log: RequestLog, counted: Bools) -> float | None:
    tokens = int(log.prompt_tokens[counted].sum()) * len(runs)
    return sum(int(run.cached_tokens[counted].sum()) for run in runs) / tokens if tokens else None


def _queue_ms(runs: Sequence[Outcome], counted: Bools) -> float | None:
    waits = np.concatenate([run.queue_ms[counted] for run in runs])
    return float(np.nanmean(waits)) if not np.isnan(waits).all() else None


def _sentence(row: Mapping[str, Any]) -> str:
    """Say in one line how the two values differ.

    >>> row = dict(policy="a", one_step_ms=900.0, closed_loop_ms=600.0, feedback_ms=-280.0, simulator_ms=-20.0)
    >>> _sentence(row)
    'a: 900 ms one step, 600 closed loop: −280 by what its own decisions lead to, −20 by the simulator.'
    """
    head = f"{row['policy']}: {number(row['one_step_ms'])} ms one step, {number(row['closed_loop_ms'])} closed loop"
    if row["feedback_ms"] is None:
        return f"{head}."
    parts = f"{number(row['feedback_ms'], signed=True)} by what its own decisions lead to"
    return f"{head}: {parts}, {number(row['simulator_ms'], signed=True)} by the simulator."
