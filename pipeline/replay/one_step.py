"""One-step estimates beside the replay: what changing a single decision would do, on logged states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.errors import DataError
from lodestar.data.log import RequestLog, Workload
from lodestar.data.reconstruct import complete_snapshot, propensity_of
from lodestar.features.matrix import chosen_features, decision_features
from lodestar.models.crossfit import cross_fit
from lodestar.models.rows import rows_of
from lodestar.pipeline.replay.estimators import OneStepInput, estimators
from lodestar.pipeline.replay.policies.contract import Policy, probabilities

__all__ = ["OneStep", "one_step"]

Floats = NDArray[np.float64]

_FEWEST_REQUESTS: Final = 200
_BLOCKS: Final = 25


@dataclass(frozen=True, slots=True)
class OneStep:
    """One row a policy and estimator, why there is none or what to know of them, and the predictor's calibration."""

    rows: list[dict[str, Any]]
    note: str | None
    calibration: pl.DataFrame | None


def one_step(log: RequestLog, workload: Workload, policies: list[Policy], seed: int) -> OneStep:
    """Estimate the mean TTFT of each policy by DM, SNIPS and DR, with a predictor cross-fitted over blocks of time."""
    known = (log.chosen >= 0) & (log.ttft_ms > 0)
    if known.sum() < _FEWEST_REQUESTS:
        return OneStep([], f"{known.sum()} requests have a decision and a TTFT; expected {_FEWEST_REQUESTS}", None)
    snapshot, _ = complete_snapshot(log, workload)
    features = decision_features(log, snapshot)
    labelled = rows_of(log, chosen_features(log, features), workload.arrived_at_s, schema.TTFT_MS)
    predicted_ms = cross_fit(labelled, features, schema.TTFT_MS, seed)
    calibration = pl.DataFrame(
        {
            "target": schema.TTFT_MS,
            "predicted_ms": predicted_ms[known, log.chosen[known]],
            "measured_ms": log.ttft_ms[known],
            schema.WAITING_REQUESTS: snapshot[schema.WAITING_REQUESTS][known, log.chosen[known]],
        }
    )
    propensity, note = propensity_of(log)
    usable = known & (propensity > 0)
    if not usable.any():
        return OneStep([], note, calibration)
    rows: list[dict[str, Any]] = []
    notes = [note] if note else []
    for policy in policies:
        missing = [name for name in policy.fields if np.isnan(snapshot[name][usable][log.candidate[usable]]).any()]
        if missing:
            notes.append(f"none of {policy.name}: the log lacks {', '.join(missing)} for some candidates")
            continue
        inputs = _inputs(log, snapshot, usable, propensity, predicted_ms, policy)
        found, failed = _estimates(inputs, policy)
        rows += found
        notes += failed
    return OneStep(rows, "; ".join(notes) or None, calibration)


def _inputs(
    log: RequestLog,
    snapshot: dict[str, Floats],
    usable: NDArray[np.bool_],
    propensity: Floats,
    predicted_ms: Floats,
    policy: Policy,
) -> OneStepInput:
    """Ask the policy what it would have done in every usable decision."""
    seen = np.stack([snapshot[name][usable] for name in schema.SNAPSHOT_FIELDS], axis=-1)
    seen[~log.candidate[usable]] = np.nan
    return OneStepInput(
        cost_ms=log.ttft_ms[usable],
        chosen=log.chosen[usable],
        propensity=propensity[usable],
        target_probability=probabilities(
            policy, log.prompt_tokens[usable].astype(np.float64), np.ascontiguousarray(seen)
        ),
        predicted_ms=predicted_ms[usable],
    )


def _estimates(inputs: OneStepInput, policy: Policy) -> tuple[list[dict[str, Any]], list[str]]:
    """Return every estimator's row, and why there is none of some."""
    rows, failed = [], []
    block = max(1, len(inputs.cost_ms) // _BLOCKS)
    for name, estimate in estimators().items():
        try:
            rows.append(estimate(inputs, policy.name, block).to_dict())
        except DataError as error:  # no logged decision is one that this policy would make
            failed.append(f"no {name} of {policy.name}: {error}")
    return rows, failed
