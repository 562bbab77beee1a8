"""Which rows a model may be judged on: those that it has not learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lodestar.data.errors import DataError
from lodestar.models.dataset import TrainingData, continues
from lodestar.models.evaluation.subject import Recipe, Subject
from lodestar.models.latency import LatencyModel
from lodestar.models.rows import Rows

__all__ = ["MIN_ROWS", "Judged", "judged", "training_rows"]

MIN_ROWS: Final = 30  # complete ones; below this a figure would be a coin toss


@dataclass(frozen=True, slots=True)
class Judged:
    """A model in front of the rows that it is judged on.

    Attributes:
        name: of the model, as asked for.
        model: that predicts: itself, or its twin that was fitted without the newest requests.
        recipe: where it comes from.
        is_twin: whether it is the twin.
        told: in words, which of the two it is and why.
    """

    name: str
    model: LatencyModel
    recipe: Recipe
    is_twin: bool
    told: str


def judged(
    subjects: Sequence[Subject], target: str, data: TrainingData, newest_ratio: float | None = None
) -> tuple[list[Judged], Rows]:
    """Return the models of a target, each as it may be judged, and the rows that are new to all of them.

    A model meets only rows newer than all that it has seen; where these are too few, its held-out twin stands in for
    it, on the rows that were held out. A model of another dataset has seen none of this one.

    Args:
        subjects: one model, or two to compare on the same rows.
        target: for which each of them has a model.
        data: the dataset to judge on.
        newest_ratio: keep only rows of this newest share of the requests.

    Raises:
        DataError: too few rows are new to them.
    """
    rows = data.rows[target]
    if newest_ratio is not None:
        rows = rows.newer_than(int((1.0 - newest_ratio) * rows.requests))
    seen = [_seen(subject, target, data) for subject in subjects]
    unseen = _newer(rows, subjects, target, data, seen)
    start = max(seen)
    if _complete(unseen) < MIN_ROWS:
        start = max(_held_out_from(subject, target, count) for subject, count in zip(subjects, seen, strict=True))
        unseen = rows.newer_than(start)
    _require_rows(unseen, rows, subjects, target, data.dataset)
    return [
        _as_judged(subject, target, data.dataset, count, start) for subject, count in zip(subjects, seen, strict=True)
    ], unseen


def training_rows(found: Judged, data: TrainingData | None) -> Rows | None:
    """Return the rows of its own dataset that a judged model learned from; None where they are not there as they were.

    Of a model that was extended it is the window that the same parameters would be fitted to now.
    """
    record, target = found.recipe.record, found.model.target
    if data is None or target not in data.rows or not _same_history(data, record):
        return None
    rows = data.rows[target]
    if found.is_twin:
        learned = rows.split(record["held_out_from"])[0]
    else:
        learned = rows.only(rows.request_index < record["requests_seen"])
    return learned.last(record["parameters"]["window_requests"])


def _newer(rows: Rows, subjects: Sequence[Subject], target: str, data: TrainingData, seen: Sequence[int]) -> Rows:
    """Return the rows that none of the models has seen.

    A request may be logged after others that arrived later: it then moves all that follow. With logged arrivals, only
    those later than the last one of the training are surely new.
    """
    newer = rows.newer_than(max(seen))
    if "arrivals" in data.notes:  # inferred: they move with every new request, and order is all there is
        return newer
    own = [subject.recipes[target].record for subject, count in zip(subjects, seen, strict=True) if count]
    last_s = max((record["window"]["to_s"] for record in own), default=-float("inf"))
    return newer.only(newer.arrived_at_s > last_s)


def _seen(subject: Subject, target: str, data: TrainingData) -> int:
    """Return how many of the dataset's first requests the model has learned from."""
    if subject.dataset != data.dataset:
        return 0
    record = subject.recipes[target].record
    if not _same_history(data, record):
        raise DataError(
            f"dataset {data.dataset!r} no longer begins with the {record['requests_seen']} requests that "
            f"{subject.name!r} has seen, so nothing tells which rows are new to it; expected the same history. "
            f"Ingest the newer log under another name, or run: lodestar train {data.dataset}"
        )
    return int(record["requests_seen"])


def _same_history(data: TrainingData, record: dict[str, object]) -> bool:
    """Compare by the hash of the requests seen; an artifact of a version without that hash is taken at its word."""
    return (
        len(data.request_ids) >= int(str(record["requests_seen"]))
        if "seen_sha256" not in record
        else continues(data, record)
    )


def _held_out_from(subject: Subject, target: str, seen: int) -> int:
    recipe = subject.recipes[target]
    return min(seen, recipe.record["held_out_from"]) if recipe.twin is not None else seen


def _as_judged(subject: Subject, target: str, dataset: str, seen: int, start: int) -> Judged:
    """Return the model itself where it has seen no request from `start` on, else its twin."""
    recipe = subject.recipes[target]
    if recipe.twin is not None and seen > start:
        told = (
            f"it has seen all {seen} requests, so its held-out twin stands in: the same recipe fitted without requests "
            f"from {recipe.record['held_out_from']} on"
        )
        return Judged(subject.name, recipe.twin, recipe, True, told)
    told = f"it has seen the first {seen} requests, and is judged on newer ones"
    if subject.dataset != dataset:
        told = f"trained on {subject.dataset}; that none of its requests is in {dataset} too is taken for granted"
    return Judged(subject.name, recipe.model, recipe, False, told)


def _require_rows(unseen: Rows, rows: Rows, subjects: Sequence[Subject], target: str, dataset: str) -> None:
    if _complete(unseen) >= MIN_ROWS:
        return
    names = " and ".join(repr(subject.name) for subject in subjects)
    raise DataError(
        f"{_complete(unseen)} of {_complete(rows)} complete rows of {dataset!r} are new to {names} ({target}); "
        f"expected {MIN_ROWS} or more. "
        "Name a dataset that the model has not seen, a larger --newest share, or a model with a held-out twin"
    )


def _complete(rows: Rows) -> int:
    return int((~rows.censored).sum())
