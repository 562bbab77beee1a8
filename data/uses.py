"""What a dataset can be used for, by the rules of the commands that use it."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema as s
from lodestar.data.log import Floats, RequestLog, Workload
from lodestar.data.reconstruction.latencies import has_no_times
from lodestar.data.reconstruction.reconstruct import e2e_ms_of, tpot_ms_of

__all__ = ["FEWEST_FITTED", "FEWEST_ONE_STEP", "FITTED_SHARE", "WARMUP_RATIO", "allowed_uses"]

# The limits of the stages above, which this stage cannot import; a test compares them.
FITTED_SHARE: Final = 0.7  # of the requests, in dispatch order, fits a model; the rest judges it
FEWEST_FITTED: Final = 50  # requests that the fitted part must hold
FEWEST_ONE_STEP: Final = 200  # decisions with a TTFT, after the warm-up
WARMUP_RATIO: Final = 0.05  # of the requests, from the first, stand in no estimate

Bools = NDArray[np.bool_]
Rule = tuple[bool, str | None]


def allowed_uses(
    log: RequestLog, workload: Workload | None, no_workload: str | None, propensity: Floats, note: str | None
) -> dict[str, dict[str, Any]]:
    """Judge each use; the first thing that is missing is the reason why not.

    One step needs a predictor, which can speak without propensities; whatever weighs decisions needs those.

    Args:
        log: the dataset.
        workload: what `workload_of` made of it.
        no_workload: why it made none.
        propensity: of the choices.
        note: how they were found, or why not.
    """
    decided = log.chosen >= 0
    replay: tuple[Rule, ...] = ((no_workload is not None, no_workload),)
    undecided = (not decided.any(), "no decisions are logged")
    no_candidates = (
        not log.candidate.any(),
        "no candidates are logged: what the router knew of each instance is missing",
    )
    first_token = (not (decided & ~np.isnan(log.ttft_ms)).any(), "no TTFT is logged")
    few, unweighted = _one_step(log, propensity, note)
    one_step = (undecided, no_candidates, first_token, *replay, few)
    uses = {
        "train": (undecided, *(() if has_no_times(log) else replay), *_train(log, workload, decided)),
        "one-step": one_step,
        "weighted one-step": (*one_step, unweighted),
        "replay": replay,
        "calibrate": (*replay, *_calibrate(log)),
    }
    return {use: _verdict([why for lacks, why in rules if lacks]) for use, rules in uses.items()}


def _train(log: RequestLog, workload: Workload | None, decided: Bools) -> tuple[Rule, ...]:
    """A target without any request is skipped; one with too few stops the training."""
    if has_no_times(log):
        arrived_at_s = finished_at_s = np.arange(len(log), dtype=np.float64)
    elif workload is None:
        return ()
    else:
        arrived_at_s, finished_at_s = workload.arrived_at_s, workload.arrived_at_s + e2e_ms_of(log) / 1e3
    latencies = {s.TTFT_MS: log.ttft_ms, s.TPOT_MS: tpot_ms_of(log)}
    usable = {name: decided & (values > 0) & ~np.isnan(finished_at_s) for name, values in latencies.items()}
    none = not any(rows.any() for rows in usable.values())
    rules: list[Rule] = [(none, "no request has a decision, TTFT or TPOT, and the time of its finish")]
    for name, rows in usable.items():
        fitted = _fitted(np.flatnonzero(rows), arrived_at_s, finished_at_s)
        few = (
            f"{rows.sum()} requests with decision, {name} and finish, {fitted} of them finished within the first "
            f"{FITTED_SHARE:.0%}; expected at least {FEWEST_FITTED} there, about 75 in all"
        )
        rules.append((bool(rows.any()) and fitted < FEWEST_FITTED, few))
    return tuple(rules)


def _fitted(rows: NDArray[np.int64], arrived_at_s: Floats, finished_at_s: Floats) -> int:
    """Count the rows before the cut that had finished when the first row after it arrived."""
    if not len(rows):
        return 0
    cut = rows[0] + int(FITTED_SHARE * (rows[-1] + 1 - rows[0]))
    early, later = rows[rows < cut], rows[rows >= cut]
    return int((finished_at_s[early] <= arrived_at_s[later[0]]).sum())


def _one_step(log: RequestLog, propensity: Floats, note: str | None) -> tuple[Rule, Rule]:
    """Return what any estimate needs, and what weights need: as many requests, with propensities."""
    if not len(log.instances):
        return (True, "no instances are logged"), (False, None)
    counted = np.arange(len(log)) >= int(WARMUP_RATIO * len(log))
    shown = counted & (log.chosen >= 0) & (log.ttft_ms > 0) & log.candidate[np.arange(len(log)), log.chosen]
    weighable = shown & (propensity > 0)
    none = note or "no propensity is above 0"
    return _enough(shown, ""), _enough(weighable, ", its propensity") if weighable.any() else (True, none)


def _enough(usable: Bools, what: str) -> Rule:
    why = f"{usable.sum()} requests after the warm-up have a decision{what} and a TTFT; expected at least"
    return bool(usable.sum() < FEWEST_ONE_STEP), f"{why} {FEWEST_ONE_STEP}"


def _calibrate(log: RequestLog) -> tuple[Rule, ...]:
    """A log that names one instance, or none, needs no decisions: it is that of one engine."""
    known = (log.chosen >= 0) | (len(log.instances) <= 1)
    early = np.arange(len(log)) < FITTED_SHARE * len(log)
    usable = int((early & known & (log.ttft_ms > 0)).sum())
    few = (
        f"{usable} requests with a decision and TTFT among the first {FITTED_SHARE:.0%}; "
        f"expected at least {FEWEST_FITTED}"
    )
    return (
        (not known.any(), "no decisions are logged"),
        (not (known & ~np.isnan(log.ttft_ms)).any(), "no TTFT is logged"),
        (usable < FEWEST_FITTED, few),
    )


def _verdict(lacking: list[str | None]) -> dict[str, Any]:
    return {"allowed": not lacking, "why_not": lacking[0] if lacking else None}
