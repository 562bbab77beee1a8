"""One-step estimates beside the replay: what changing a single decision would do, on logged states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.errors import DataError
from lodestar.data.log import RequestLog, Workload
from lodestar.data.reconstruction.reconstruct import complete_snapshot
from lodestar.features.matrix import chosen_features, decision_features
from lodestar.models.crossfit import cross_fit
from lodestar.models.rows import rows_of
from lodestar.pipeline.replay.decisions import score_decisions
from lodestar.pipeline.replay.estimators import OneStepInput, estimators
from lodestar.pipeline.replay.parallel import AnyPolicy
from lodestar.pipeline.replay.routing.contract import Fleet

__all__ = ["OneStep", "one_step"]

Floats = NDArray[np.float64]

_FEWEST_REQUESTS: Final = 200
_BLOCKS: Final = 25


@dataclass(frozen=True, slots=True)
class OneStep:
    """One row a policy and estimator, why there is none or what to know of them, and the predictor's calibration.

    `inferred` says which snapshot fields the log left out and how they were inferred.
    """

    rows: list[dict[str, Any]]
    note: str | None
    calibration: pl.DataFrame | None = None
    inferred: dict[str, str] = field(default_factory=dict)


def one_step(
    log: RequestLog,
    workload: Workload,
    propensity: Floats,
    note: str | None,
    policies: Mapping[str, AnyPolicy],
    fleet: Fleet,
    seed: int,
) -> OneStep:
    """Estimate the mean TTFT of each policy by DM, SNIPS and DR, with a predictor cross-fitted over blocks of time.

    A diagnostic: where the log does not allow it, there are no rows, and the note says why.
    """
    known = (log.chosen >= 0) & (log.ttft_ms > 0)
    if known.sum() < _FEWEST_REQUESTS:
        return OneStep([], f"{known.sum()} requests have a decision and a TTFT; expected {_FEWEST_REQUESTS}")
    try:
        snapshot, completed = complete_snapshot(log, workload)
        features = decision_features(log, snapshot)
        labelled = rows_of(log, chosen_features(log, features), workload.arrived_at_s, schema.TTFT_MS)
        predicted_ms = cross_fit(labelled, features, schema.TTFT_MS, seed)
    except DataError as error:
        return OneStep([], str(error))
    inferred = {name: str(how) for name, how in completed.items()}
    calibration = pl.DataFrame(
        {
            "target": schema.TTFT_MS,
            "predicted_ms": predicted_ms[known, log.chosen[known]],
            "measured_ms": log.ttft_ms[known],
            schema.WAITING_REQUESTS: snapshot[schema.WAITING_REQUESTS][known, log.chosen[known]],
        }
    )
    usable = known & (propensity > 0) & log.candidate[np.arange(len(log)), log.chosen]
    if usable.sum() < _FEWEST_REQUESTS:
        few = f"{usable.sum()} of these decisions have a propensity and candidates; expected {_FEWEST_REQUESTS}"
        return OneStep([], note or few, calibration, inferred)
    notes = [note] if note else []
    if usable.sum() < known.sum():
        notes.append(
            f"{known.sum() - usable.sum()} of {known.sum()} decisions left out: no propensity or no candidates"
        )
    rows: list[dict[str, Any]] = []
    for name, policy in policies.items():
        scored = score_decisions(policy, log, workload, snapshot, fleet)
        target = scored.probability[usable]
        if np.isnan(target).any():
            notes.append(f"no estimate of {name}: {'; '.join(scored.not_scored)}")
            continue
        inputs = OneStepInput(
            cost_ms=log.ttft_ms[usable],
            chosen=log.chosen[usable],
            propensity=propensity[usable],
            target_probability=target,
            predicted_ms=predicted_ms[usable],
        )
        found, failed = _estimates(inputs, name)
        rows += found
        notes += [*(f"{name}: {note}" for note in scored.notes), *failed]
    return OneStep(rows, "; ".join(notes) or None, calibration, inferred)


def _estimates(inputs: OneStepInput, policy: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Return every estimator's row, and why there is none of some."""
    rows, failed = [], []
    block = max(1, len(inputs.cost_ms) // _BLOCKS)
    for name, estimate in estimators().items():
        try:
            rows.append(estimate(inputs, policy, block).to_dict())
        except DataError as error:  # no logged decision is one that this policy would make
            failed.append(f"no {name} of {policy}: {error}")
    return rows, failed
