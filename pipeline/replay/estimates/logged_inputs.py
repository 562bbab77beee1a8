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
from lodestar.pipeline.estimation.blocks import block_of, block_se
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
_FAR: Final = 3.0  # standard errors between two means, which luck does not explain


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
        with_propensity: how many decisions have one, whether or not they are enough to weigh anything by.
        whole: the same of all decisions, none of which is weighed; None where no other is left out here.
    """

    decisions: LoggedDecisions | None
    rows: Bools
    candidate: Bools
    predicted: Floats
    snapshot: Mapping[str, Floats]
    calibration: pl.DataFrame | None = None
    inferred: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    with_propensity: int = 0
    whole: LoggedInputs | None = None

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

    Those with a propensity, where there are enough of them; else all, of which the predictor alone can speak, so that a
    few propensities are never worse than none.

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
    if shown.sum() < FEWEST_REQUESTS:
        few = f"{shown.sum()} of these decisions have candidates; expected {FEWEST_REQUESTS} or more: log more"
        return LoggedInputs(None, *none, snapshot, calibration, inferred, (note or few,))
    weighable = shown & (propensity > 0)
    enough = weighable.sum() >= FEWEST_REQUESTS
    rows = weighable if enough else shown
    partly = bool((shown & ~weighable).any() and weighable.any())  # which is told below, with numbers
    notes = [note] if note and not partly else []
    if missing := int((counted & ~measured).sum()):
        notes.append(f"{missing} of {counted.sum()} requests left out: no decision or no TTFT")
    if (known & ~rows).any():
        notes.append(_left_out(log.ttft_ms[known], rows[known]))
    groups = SharedPrefixes.of_blocks(workload.block_ids, workload.block_offsets, log.prompt_tokens)

    def of(these: Bools, p: Floats, said: tuple[str, ...]) -> LoggedInputs:
        candidate = log.candidate[these]
        decisions = LoggedDecisions.of_padded(
            log.ttft_ms[these], candidate, log.chosen[these], p[these], _logging(log, these, p)
        )
        decisions = replace(decisions, logger=_logger(log, these), shared=groups.only(these))
        predicted = predicted_ms[these][candidate]
        return LoggedInputs(
            decisions, these, candidate, predicted, snapshot, calibration, inferred, said, int(weighable.sum())
        )

    nothing = np.full(len(log), np.nan)
    found = of(rows, propensity if enough else nothing, tuple(notes))
    return replace(found, whole=of(shown, nothing, ())) if (shown & ~rows).any() else found


def _left_out(ttft_ms: Floats, kept: Bools) -> str:
    """Say how many decisions are left out, and, if they are many, how the others differ from them."""
    n, left = len(kept), int((~kept).sum())
    said = f"{left:,} of {n:,} decisions left out: no propensity or no candidates"
    if left <= MOST_LEFT_OUT * n:
        return said
    (here, there), blocks = (ttft_ms[side].mean() for side in (kept, ~kept)), block_of(n)
    influence = np.where(kept, (ttft_ms - here) / kept.mean(), -(ttft_ms - there) / (~kept).mean())
    far = abs(here - there) > _FAR * block_se(influence, blocks)
    fair = "more than luck explains: they are no fair sample" if far else "no more than luck explains"
    return (
        f"{said}. One-step values are of the other {n - left:,}, the closed loop of all; as logged, their mean TTFT is "
        f"{here:,.0f} ms, that of those left out {there:,.0f}, {fair}"
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
    if np.isnan(propensity[rows]).all():
        return None
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
