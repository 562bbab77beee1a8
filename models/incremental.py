"""Learning from new requests only: more trees on the current model, within a limit."""

from __future__ import annotations

from typing import Final

from lodestar.models.candidate import TRAINING_SHARE, Outcome, full_fit, record_of
from lodestar.models.current import Trained
from lodestar.models.dataset import TrainingData, ids_sha256
from lodestar.models.evaluate import evaluate
from lodestar.models.fit import extend
from lodestar.models.parameters import MAX_TREES, Parameters
from lodestar.models.promotion import judge

__all__ = ["MIN_NEW_ROWS", "update"]

MIN_NEW_ROWS: Final = 100


def update(data: TrainingData, target: str, current: Trained | None, seed: int) -> Outcome:
    """Bring one target up to date with the requests dispatched after the last one that its model has seen.

    Fits the full window anew where trees cannot be added: there is no model, the dataset no longer begins with the
    requests that it has seen, or the trees would exceed their limit.
    """
    if current is None:
        return full_fit(data, target, Parameters(), seed, None, "no earlier model")
    parameters, seen = Parameters(**current.record["parameters"]), current.record["requests_seen"]
    if ids_sha256(data.request_ids[:seen]) != current.record["seen_sha256"]:
        reason = "the dataset no longer begins with the requests that the current model has seen"
        return full_fit(data, target, parameters, seed, _from_another_dataset(current, data), reason)
    new = len(data.rows[target].newer_than(seen))
    if new < MIN_NEW_ROWS:
        at_least = "" if new == 0 else f", fewer than {MIN_NEW_ROWS}"
        return Outcome("unchanged", f"{new} new rows since request {seen}{at_least}: nothing done")
    if current.model.trees + parameters.update_rounds > MAX_TREES:
        reason = f"{current.model.trees} trees and {parameters.update_rounds} more would exceed {MAX_TREES}"
        return full_fit(data, target, parameters, seed, current, reason)
    return _extended(data, target, current, parameters, seed)


def _extended(data: TrainingData, target: str, current: Trained, parameters: Parameters, seed: int) -> Outcome:
    """Measure an extension without the newest of the new requests; then extend by all of them."""
    new = data.rows[target].newer_than(current.record["requests_seen"])
    training, newest = new.split_share(TRAINING_SHARE)
    held_out = extend(current.model, training, parameters, seed)
    metrics = evaluate(held_out, training, newest)
    verdict = judge(held_out, newest, current)
    model = extend(current.model, new, parameters, seed)
    record = record_of(data, new, int(newest.request_index[0]), parameters, seed, metrics)
    reason = f"{len(new)} new rows since request {current.record['requests_seen']}"
    return Outcome("extended", reason, verdict, Trained(model, held_out, record), metrics, None, new)


def _from_another_dataset(current: Trained, data: TrainingData) -> Trained | None:
    """Return None: what the current model has seen cannot be told from what it has not, so nothing can be compared."""
    return None
