"""Why one step and closed loop differ: what a policy's decisions lead to, the run as a whole, and single steps.

With C the closed loop, V one step by the log, S one step in the simulator, L the logged mean, and b what made the log:

    C(π) − V(π) = {[C(π) − S(π)] − [C(b) − S(b)]} + {C(b) − L} + {[S(π) − V(π)] − [S(b) − L]}

The first is what the policy's own earlier decisions do: it meets other queues and caches than the log had. For b itself
it is 0 by definition. The second is how far the replay of the log itself is off: luck of that one run, or the
simulator's error over the whole of it. The third is the simulator's error in a single step, as far as it is another one
than for b, or luck of the estimate. Where b is not known, C(b) is the replay of the logged choices, and S(b) theirs.

What is off by as much for the log itself, or under another seed, is no effect of decisions: where the first is no
larger than the second, or than the luck of the replays, no cause is named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.data.log import RequestLog
from lodestar.pipeline.estimation.beyond.control_variate import control_variate
from lodestar.pipeline.estimation.intervals.linearised import t_quantile
from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.one_step import OneStepInput, direct_values
from lodestar.pipeline.replay.calibration.forced import known_choices
from lodestar.pipeline.replay.cluster import Cluster, Outcome
from lodestar.pipeline.replay.estimates.closed_loop_correction import Correction
from lodestar.pipeline.replay.estimates.one_step import OneStep
from lodestar.pipeline.replay.estimates.simulated_one_step import simulated_ttft_ms
from lodestar.pipeline.replay.logged_policy import name_among, named_policy
from lodestar.pipeline.replay.logged_traffic import LoggedTraffic
from lodestar.pipeline.replay.routing.contract import Policy
from lodestar.reports.numbers import number

__all__ = ["gap_rows"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Made:
    """What made the log, which every gap is measured against.

    Attributes:
        by: its name; None: not known, and the logged choices stand for it.
        logged_ms: mean of the decisions that one-step values are of.
        replayed_ms: closed loop; None where nothing was measured to compare it with.
    """

    by: str | None
    logged_ms: float
    replayed_ms: float | None


def gap_rows(
    traffic: LoggedTraffic,
    cluster: Cluster,
    steps: OneStep,
    outcomes: Mapping[str, Sequence[Outcome]],
    summarised: Sequence[Mapping[str, Any]],
    correction: Correction,
    made_by: Policy | None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Set the one-step value of each policy beside its closed loop, and split what lies between; and notes.

    The one-step value is dr, or dm where there is none, as where the log does not carry weights.

    Args:
        traffic: what was logged.
        cluster: as it was logged, calibrated.
        steps: the one-step estimates.
        outcomes: policy → its replays in that cluster.
        summarised: one row a policy, as `summary` returns them.
        correction: closed-loop means corrected by how far the replay of the log itself is off.
        made_by: what made the log, if it is known.

    Returns:
        One row a policy, and notes. The gap is `feedback_ms` + `log_replay_error_ms` + `simulator_ms`; `feedback_told`
        says whether the first is larger than the second and than the luck of the replays, so that a cause can be named.
        `simulated_one_step_ms` is S, `corrected_one_step_ms` the same after `control_variate`, and
        `ratio_corrected_ms` C after `correction`.
    """
    if not steps.scored or steps.inputs.decisions is None:
        return [], []
    log, counted, closed = traffic.log, traffic.counted, {row["policy"]: row for row in summarised}
    values = {row["policy"]: row for name in ("dm", "dr") for row in steps.rows if row["estimator"] == name}
    own = name_among(made_by, outcomes)
    name = own or (_name_of(made_by, log) if made_by else None)
    made = _made(steps.inputs.decisions, correction, name, closed[own] if own else None)
    simulated, of_made, notes = _simulated(traffic, cluster, steps, own)
    forced = cluster.replay(forced=known_choices(log))
    luck_ms = {name: _luck_ms(runs, outcomes[own] if own else (), counted) for name, runs in outcomes.items()}
    rows = []
    for policy, value in values.items():
        row = closed[policy]
        found = {
            "policy": policy,
            "made_by": made.by,
            "estimator": value["estimator"],
            "one_step_ms": value["value_ms"],
            "one_step_ci95": list(value["ci95_ms"]),
            "closed_loop_ms": row["ttft_ms"]["mean"],
            "closed_loop_ci95": row["ttft_ms"]["ci95"],
            "path_dependent": row["path_dependent"],
            "luck_ms": luck_ms[policy] if math.isfinite(luck_ms[policy]) else None,
            **_split(value["value_ms"], row["ttft_ms"]["mean"], simulated.get(policy), made, of_made, luck_ms[policy]),
            "logged_hit_ratio": _hit_ratio([forced], traffic),
            "replayed_hit_ratio": row["hit_ratio"],
            "logged_queue_ms": _queue_ms([forced], counted),
            "replayed_queue_ms": _queue_ms(outcomes[policy], counted),
            **_corrected(correction, policy, closed.get(own) if own else None),
        }
        rows.append({**found, "sentence": _sentence(found)})
    return rows, [*_reference(made, correction), *notes]


def _name_of(policy: Policy, log: RequestLog) -> str:
    """Return what a policy is called with its settings, which the log tells where it tells the policy."""
    return log.policy if log.policy and named_policy(log.policy) == policy else policy.name


def _made(decisions: LoggedDecisions, correction: Correction, name: str | None, own: Mapping[str, Any] | None) -> _Made:
    logged_ms = float(decisions.cost.mean())
    if not correction.rows:
        return _Made(name, logged_ms, None)
    # What the correction divides by is over the requests that the log measured, as the logged mean is.
    factor = correction.rows[0]["corrected_ttft_ms"] / correction.rows[0]["raw_ttft_ms"]
    return _Made(name, logged_ms, own["ttft_ms"]["mean"] if own else logged_ms / factor)


def _reference(made: _Made, correction: Correction) -> list[str]:
    """Say how far off the replay of the log itself is: that much of every gap may be no policy's doing."""
    if made.replayed_ms is None:
        return [correction.note] if correction.note else []
    what = "the logged choices are" if made.by is None else f"{made.by} is"
    off = number(made.replayed_ms - made.logged_ms, signed=True)
    return [
        f"the log itself: {number(made.logged_ms)} ms as measured, {number(made.replayed_ms)} when {what} replayed: "
        f"{off} ms is luck of that one run or the simulator's error, and as much of every gap may be"
    ]


def _corrected(correction: Correction, policy: str, own: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the closed-loop mean after correction, None where nothing was measured to correct by.

    It is to be doubted where caches differ, and where the logging policy depends on its path, which one seed cannot
    tell: the log is one of many.
    """
    row = next((row for row in correction.rows if row["policy"] == policy), None)
    return {
        "ratio": None if row is None else row["corrected_ttft_ms"] / row["raw_ttft_ms"],
        "ratio_corrected_ms": None if row is None else row["corrected_ttft_ms"],
        "ratio_corrected_ci95": None if row is None else row["corrected_ci95"],
        "ratio_doubted": row is not None and bool(row["error_may_differ"] or (own and _may_depend_on_path(own))),
    }


def _may_depend_on_path(row: Mapping[str, Any]) -> bool:
    return bool(row["path_dependent"] or row["spread_over_seeds"] is None)


def _simulated(
    traffic: LoggedTraffic, cluster: Cluster, steps: OneStep, own: str | None
) -> tuple[dict[str, dict[str, Any]], float | None, list[str]]:
    """Return one step in the simulator: of every policy, alone and corrected by the log; and of what made the log."""
    inputs, decisions = steps.inputs, steps.inputs.decisions
    assert decisions is not None
    found: dict[str, dict[str, Any]] = {}
    notes = []
    try:
        predicted = simulated_ttft_ms(traffic.log, cluster)[inputs.rows][inputs.candidate]
        of_made = float(direct_values(OneStepInput(decisions, _logging(decisions), predicted)).mean())
    except DataError as error:
        return {}, None, [f"the gap is not split: {error}"]
    for policy, rows in steps.scored.items():
        simulated = OneStepInput(rows.log, rows.target, predicted)
        try:
            found[policy] = (
                control_variate(simulated).to_dict()
                if policy in steps.weighed
                else {"simulated": float(direct_values(simulated).mean()), "value": None}
            )
        except DataError as error:
            notes.append(f"the gap of {policy} is not split: {error}")
    return found, found[own]["simulated"] if own in found else of_made, notes


def _logging(decisions: LoggedDecisions) -> Floats:
    """Return the probability that each candidate had, shape (c,); where the log does not tell, 1 for the chosen."""
    if decisions.logging is not None:
        return decisions.logging
    chosen = np.zeros(decisions.candidates)
    chosen[decisions.chosen] = 1.0
    return chosen


def _split(
    one_step_ms: float,
    closed_loop_ms: float | None,
    simulated: Mapping[str, Any] | None,
    made: _Made,
    of_made_ms: float | None,
    luck_ms: float,
) -> dict[str, Any]:
    """Return the three parts of the gap, which add up to it.

    >>> made = _Made("b", logged_ms=1000.0, replayed_ms=1100.0)
    >>> simulated = {"simulated": 920.0, "value": 905.0}
    >>> parts = _split(900.0, 700.0, simulated, made, of_made_ms=1030.0, luck_ms=80.0)
    >>> [parts[name] for name in ("gap_ms", "feedback_ms", "log_replay_error_ms", "simulator_ms", "feedback_told")]
    [-200.0, -290.0, 100.0, -10.0, True]
    >>> _split(900.0, 700.0, simulated, made, of_made_ms=1030.0, luck_ms=300.0)["feedback_told"]
    False
    """
    gap_ms = None if closed_loop_ms is None else closed_loop_ms - one_step_ms
    by_log = None if made.replayed_ms is None else made.replayed_ms - made.logged_ms
    by_simulator = by_feedback = None
    told = False
    if gap_ms is not None and simulated is not None and of_made_ms is not None and by_log is not None:
        by_simulator = simulated["simulated"] - one_step_ms - (of_made_ms - made.logged_ms)
        by_feedback = gap_ms - by_log - by_simulator
        told = abs(by_feedback) > max(abs(by_log), luck_ms)
    return {
        "gap_ms": gap_ms,
        "feedback_ms": by_feedback,
        "log_replay_error_ms": by_log,
        "simulator_ms": by_simulator,
        "feedback_told": told,
        "simulated_one_step_ms": None if simulated is None else simulated["simulated"],
        "corrected_one_step_ms": None if simulated is None else simulated["value"],
    }


def _luck_ms(runs: Sequence[Outcome], of_made: Sequence[Outcome], counted: Bools) -> float:
    """Return by how much the mean of a policy, less that of what made the log, may be off by the seeds' luck: t · se.

    Of a single run nobody knows: it is infinite.
    """
    if len(runs) < 2:
        return math.inf
    means = np.array([np.nanmean(run.ttft_ms[counted]) for run in runs])
    less = means - np.array([np.nanmean(run.ttft_ms[counted]) for run in of_made]) if of_made else means
    return t_quantile(len(runs), 0.95) * float(less.std(ddof=1)) / math.sqrt(len(runs))


def _hit_ratio(runs: Sequence[Outcome], traffic: LoggedTraffic) -> float | None:
    counted = traffic.counted
    tokens = int(traffic.log.prompt_tokens[counted].sum()) * len(runs)
    return sum(int(run.cached_tokens[counted].sum()) for run in runs) / tokens if tokens else None


def _queue_ms(runs: Sequence[Outcome], counted: Bools) -> float | None:
    waits = np.concatenate([run.queue_ms[counted] for run in runs])
    return float(np.nanmean(waits)) if not np.isnan(waits).all() else None


def _sentence(row: Mapping[str, Any]) -> str:
    """Say in one line how the two values differ, and why, as far as that can be told.

    >>> row = dict(policy="a", made_by="b", one_step_ms=900.0, closed_loop_ms=600.0, path_dependent=False)
    >>> row |= dict(feedback_told=True, feedback_ms=-260.0, log_replay_error_ms=-30.0, simulator_ms=-10.0)
    >>> _sentence(row)
    'a: 900 ms one step, 600 closed loop: −260 by what its own decisions lead to, −30 as the replay of the log itself \
is off, −10 in single steps (simulator or luck of the estimate).'
    >>> _sentence(row | dict(feedback_told=False, luck_ms=None))[37:]
    'no cause can be named, since one seed does not tell the luck of replays: −260 by what its own decisions may lead \
to, −30 as the replay of the log itself is off, −10 in single steps (simulator or luck of the estimate).'
    """
    head = f"{row['policy']}: {number(row['one_step_ms'])} ms one step, {number(row['closed_loop_ms'])} closed loop"
    if row["path_dependent"]:
        head += " on average, though it depends on its path"
    if row["feedback_ms"] is None:
        return f"{head}."
    own, by_log, step = (
        number(row[name], signed=True) for name in ("feedback_ms", "log_replay_error_ms", "simulator_ms")
    )
    single = f"{step} in single steps (simulator or luck of the estimate)"
    if row["policy"] == row["made_by"]:
        return f"{head}: {by_log} as its replay is off the log that it made (luck or the simulator), {single}."
    if row["feedback_told"]:
        parts = f"{own} by what its own decisions lead to, {by_log} as the replay of the log itself is off"
        return f"{head}: {parts}, {single}."
    if row.get("luck_ms", 0.0) is None:
        return (
            f"{head}: no cause can be named, since one seed does not tell the luck of replays: {own} by what its own "
            f"decisions may lead to, {by_log} as the replay of the log itself is off, {single}."
        )
    return (
        f"{head}: no cause can be named, since what its own decisions may lead to ({own}) is no more than the replay "
        f"of the log itself is off by ({by_log}), or than the luck of replays; {single}."
    )
