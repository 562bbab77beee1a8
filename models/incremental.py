"""Learning from new requests only: more trees on the current model, within a limit."""

from __future__ import annotations

from lodestar.models.candidate import TRAINING_SHARE, Outcome, full_fit
from lodestar.models.current import Trained
from lodestar.models.dataset import TrainingData, continues
from lodestar.models.evaluate import evaluate
from lodestar.models.fit import MIN_ROWS, extend
from lodestar.models.parameters import MAX_TREES, Parameters
from lodestar.models.promotion import MIN_NEWEST, judge
from lodestar.models.record import record_of
from lodestar.models.rows import Rows

__all__ = ["update"]


def update(data: TrainingData, target: str, current: Trained | None, seed: int) -> Outcome:
    """Bring one target up to date with the requests dispatched after the last one that its model has seen.

    Fits the full window anew where trees cannot be added: there is no model, the dataset no longer begins with the
    requests that it has seen, or the trees would exceed their limit.
    """
    if current is None:
        return full_fit(data, target, Parameters(), seed, None, "no earlier model")
    parameters, seen = Parameters(**current.record["parameters"]), current.record["requests_seen"]
    if not continues(data, current.record):
        reason = "the dataset no longer begins with the requests that the current model has seen"
        return full_fit(data, target, parameters, seed, current, reason)
    new = data.rows[target].newer_than(seen)
    training, newest = new.split_share(TRAINING_SHARE)
    if len(training) < MIN_ROWS or len(newest) < MIN_NEWEST:
        need = f"{MIN_ROWS} to learn from and {MIN_NEWEST} to measure on are needed"
        words = "nothing new" if len(new) == 0 else f"{len(new)} new rows are too few ({need})"
        return Outcome("unchanged", f"{words} since request {seen}: nothing done")
    if current.model.trees + parameters.update_rounds > MAX_TREES:
        reason = f"{current.model.trees} trees and {parameters.update_rounds} more would exceed {MAX_TREES}"
        return full_fit(data, target, parameters, seed, current, reason)
    return _extended(data, new, current, parameters, seed)


def _extended(data: TrainingData, new: Rows, current: Trained, parameters: Parameters, seed: int) -> Outcome:
    """Measure an extension without the newest of the new requests; then extend by all of them."""
    training, newest = new.split_share(TRAINING_SHARE)
    held_out = extend(current.model, training, parameters, seed)
    metrics = evaluate(held_out, training, newest)
    verdict = judge(held_out, newest, current)
    model = extend(current.model, new, parameters, seed)
    record = record_of(data, new, int(newest.request_index[0]), parameters, seed, metrics, current.record)
    reason = f"{len(new)} new rows since request {current.record['requests_seen']}"
    return Outcome("extended", reason, verdict, Trained(model, held_out, record), metrics, None, new)
