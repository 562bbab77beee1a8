"""What a log gives the one-step estimators: decisions, a predictor's costs, and what each policy would have done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

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
from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.one_step import OneStepInput
from lodestar.pipeline.estimation.shared_prefixes import SharedPrefixes
from lodestar.pipeline.replay.decisions import score_decisions
from lodestar.pipeline.replay.parallel import AnyPolicy
from lodestar.pipeline.replay.routing.contract import MODEL, Fleet, Policy

__all__ = ["FEWEST_REQUESTS", "MOST_LEFT_OUT", "LoggedInputs", "logged_inputs", "target_of"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

FEWEST_REQUESTS: Final = 200
#: Of the requests, from sums over those that follow a decision: what they paid is missing there.
MOST_LEFT_OUT: Final = 0.01


@dataclass(frozen=True, slots=True)
class LoggedInputs:
    """What is the same for all policies.

    Attributes:
        decisions: those that can be used; None where there are too few.
        rows: which requests of the log they are, shape (requests,).
        candidate: which of the instances were candidates of each, shape (n, m).
        predicted: TTFT in ms of every candidate, by a model of other blocks of time, shape (c,).
        snapshot: field → what was known of every instance, shape (requests, m).
        calibration: predicted and measured TTFT of the chosen candidates, where a predictor could be fitted.
        inferred: snapshot fields that the log left out → how they were inferred.
        notes: what was left out, and why.
    """

    decisions: LoggedDecisions | None
    rows: Bools
    candidate: Bools
    predicted: Floats
    snapshot: Mapping[str, Floats]
    calibration: pl.DataFrame | None = None
    inferred: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def instance(self) -> Ints:
        """Instance of every candidate, shape (c,)."""
        return np.nonzero(self.candidate)[1]

    def known(self, name: str) -> Floats:
        """Return a snapshot field of every candidate, shape (c,)."""
        return np.asarray(self.snapshot[name][self.rows][self.candidate])


def logged_inputs(
    log: RequestLog, workload: Workload, propensity: Floats, note: str | None, counted: Bools, seed: int
) -> LoggedInputs:
    """Prepare the decisions of a log; where it does not allow estimates, `notes` say why.

    Args:
        log: the dataset.
        workload: the same requests, complete.
        propensity: of the choices, shape (requests,).
        note: how they were found, or why not.
        counted: the requests that estimates are to be over, shape (requests,).
        seed: of the predictor.
    """
    measured = (log.chosen >= 0) & (log.ttft_ms > 0)
    known = counted & measured
    none = np.zeros(len(log), dtype=np.bool_), np.zeros((0, len(log.instances)), dtype=np.bool_), np.zeros(0)
    if known.sum() < FEWEST_REQUESTS:
        few = f"{known.sum()} requests have a decision and a TTFT; expected {FEWEST_REQUESTS} or more: log more"
        return LoggedInputs(None, *none, {}, notes=(few,))
    try:
        snapshot, completed = complete_snapshot(log, workload)
        features = decision_features(log, snapshot)
        labelled = rows_of(log, chosen_features(log, features), workload.arrived_at_s, schema.TTFT_MS)
        predicted_ms = cross_fit(labelled, features, schema.TTFT_MS, seed)
    except DataError as error:
        return LoggedInputs(None, *none, {}, notes=(str(error),))
    inferred = {name: str(how) for name, how in completed.items()}
    calibration = _calibration(log, snapshot, predicted_ms, measured)
    shown = known & log.candidate[np.arange(len(log)), log.chosen]
    # Without any propensity the model can speak for all decisions; with some, for those that have one.
    rows = shown & (propensity > 0) if (propensity[shown] > 0).any() else shown
    if rows.sum() < FEWEST_REQUESTS:
        few = (
            f"{rows.sum()} of these decisions have a propensity and candidates; expected {FEWEST_REQUESTS} or more: "
            "log more"
        )
        return LoggedInputs(None, *none, snapshot, calibration, inferred, (note or few,))
    notes = [note] if note else []
    if missing := int((counted & ~measured).sum()):
        notes.append(f"{missing} of {counted.sum()} requests left out: no decision or no TTFT")
    if left := int(known.sum() - rows.sum()):
        notes.append(f"{left} of {known.sum()} decisions left out: no propensity or no candidates")
    candidate = log.candidate[rows]
    decisions = replace(
        LoggedDecisions.of_padded(
            log.ttft_ms[rows], candidate, log.chosen[rows], propensity[rows], _logging(log, rows, propensity)
        ),
        logger=_logger(log, rows),
        shared=SharedPrefixes.of_blocks(workload.block_ids, workload.block_offsets, log.prompt_tokens).only(rows),
    )
    return LoggedInputs(
        decisions, rows, candidate, predicted_ms[rows][candidate], snapshot, calibration, inferred, tuple(notes)
    )


def target_of(
    inputs: LoggedInputs, policy: AnyPolicy, log: RequestLog, workload: Workload, fleet: Fleet
) -> tuple[OneStepInput | None, tuple[str, ...]]:
    """Score the decisions by a policy; return what estimators take, or None, and what to know or why there is none."""
    if inputs.decisions is None:
        return None, inputs.notes
    scored = score_decisions(policy, log, workload, inputs.snapshot, fleet)
    target = scored.probability[inputs.rows]
    if np.isnan(target).any():
        return None, (f"no estimate: {'; '.join(scored.not_scored)}",)
    notes = scored.notes
    if isinstance(policy, Policy) and policy.predictor == MODEL:
        notes += ("its model may have learned from these very requests, which makes it look better than it is",)
    return OneStepInput(inputs.decisions, target[inputs.candidate], inputs.predicted), notes


def _logging(log: RequestLog, rows: Bools, propensity: Floats) -> Floats | None:
    """Return the probability of every candidate where the log has them all, or where all had the same."""
    candidate = log.candidate[rows]
    probability = log.probability[rows]
    if not np.isnan(probability[candidate]).any():
        return probability
    same = 1 / candidate.sum(axis=1)
    return np.where(candidate, same[:, None], 0.0) if np.allclose(propensity[rows], same) else None  # NaN is not


def _logger(log: RequestLog, rows: Bools) -> Ints | None:
    """Return which router decided, where all of these decisions name one, and all that are named decided some."""
    if log.logger is None or set(log.logger[rows].tolist()) != set(range(len(log.loggers))):
        return None
    return log.logger[rows]


def _calibration(log: RequestLog, snapshot: Mapping[str, Floats], predicted_ms: Floats, known: Bools) -> pl.DataFrame:
    chosen = log.chosen[known]
    return pl.DataFrame(
        {
            "target": schema.TTFT_MS,
            "predicted_ms": predicted_ms[known, chosen],
            "measured_ms": log.ttft_ms[known],
            schema.WAITING_REQUESTS: snapshot[schema.WAITING_REQUESTS][known, chosen],
        }
    )
