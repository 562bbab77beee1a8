"""Arrival times of the same requests from another dataset: when clients sent them, not what became of them."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Final

import numpy as np

from lodestar.data import schema as s
from lodestar.data.conversations import numbered_sessions
from lodestar.data.errors import DataError
from lodestar.data.log import Floats, Inferred, Ints, RequestLog
from lodestar.data.reconstruction.arms import paired_rows
from lodestar.data.reconstruction.arrivals import inflight_by_instance
from lodestar.data.reconstruction.latencies import e2e_ms_of
from lodestar.data.reconstruction.own import without_own

__all__ = ["joined_arrivals"]

FEWEST: Final = 0.9  # of the requests must have a time in the other dataset
SAME_ORDER: Final = 0.99  # rank correlation of the times with the order of dispatch
#: What is not one value a request, and conversations, whose numbers follow their order.
_OF_THE_LOG: Final = (
    "dataset",
    "instances",
    "policy",
    "loggers",
    "logger",
    "block_ids",
    "block_offsets",
    "block_tokens",
    "session",
    "found",
)


def joined_arrivals(log: RequestLog, other: RequestLog) -> RequestLog:
    """Give a log the arrival times that another dataset has of the same requests, joined by id and prompt tokens.

    Nothing else of `other` is used. A request that it lacks arrives between its neighbours in dispatch order. Rows are
    put in the order of arrival, and `RequestLog.found` says how far that contradicts the order of dispatch, and how
    well the times explain what was in flight.
    """
    if len(log) and not np.isnan(log.arrived_at_s).any():
        raise DataError(
            f"dataset {log.dataset!r} has arrival times of its own; expected one without. Leave --arrivals-from out"
        )
    row, there = paired_rows(log, other)
    timed = ~np.isnan(other.arrived_at_s[there])
    row, times_s = row[timed], other.arrived_at_s[there[timed]]
    if len(row) < max(1.0, FEWEST * len(log)):
        raise DataError(
            f"--arrivals-from {other.dataset}: {len(row)} of the {len(log)} requests of {log.dataset} have an arrival "
            f"time in it; expected at least {FEWEST:.0%}, by id and prompt tokens. Name a log of the same traffic"
        )
    agreement = _rank_agreement(times_s)
    if agreement < SAME_ORDER:
        raise DataError(
            f"--arrivals-from {other.dataset}: its arrivals come in another order than {log.dataset} was dispatched in "
            f"(rank correlation {agreement:.3f}); expected at least {SAME_ORDER}. Name a log of the same traffic"
        )
    arrived_at_s = np.interp(np.arange(len(log)), row, times_s)
    order = np.argsort(arrived_at_s, kind="stable")
    timed_log = replace(_reordered(log, order), arrived_at_s=arrived_at_s[order] - arrived_at_s.min())
    notes = _notes(times_s, len(log) - len(row), int((~np.isnan(log.arrived_at_s)).sum()))
    return replace(timed_log, found=(*log.found, _found(timed_log, other.dataset, notes)))


def _rank_agreement(times_s: Floats) -> float:
    rank = np.argsort(np.argsort(times_s, kind="stable"), kind="stable")
    return float(np.corrcoef(rank, np.arange(len(rank)))[0, 1]) if len(rank) > 1 else 1.0


def _notes(times_s: Floats, missing: int, own: int) -> list[str]:
    """Say what is not as it should be; `times_s` are the times found, in the order of dispatch."""
    back_s = -np.diff(times_s)
    against = int((back_s > 0).sum())
    notes = []
    if missing:
        notes.append(f"{missing} requests without a time there were put between their neighbours")
    if against:
        notes.append(
            f"{against} of {len(times_s)} arrived there before the one dispatched before them here, by at most "
            f"{back_s.max():.3g} s, and were put in the order of arrival"
        )
    if own:
        notes.append(f"{own} times of its own, of another clock, were not used")
    return notes


def _found(log: RequestLog, dataset: str, notes: list[str]) -> Inferred:
    fit = _inflight_fit(log)
    return Inferred(
        "arrivals",
        f"not logged: those of the same requests in {dataset}, joined by id and prompt tokens",
        None if fit is None else "correlation of the totals in flight that they give with those logged",
        fit,
        "; ".join(notes),
    )


def _inflight_fit(log: RequestLog) -> float | None:
    """Correlate what was in flight by these arrivals and the logged latencies with what the log counted."""
    inflight, e2e_s = without_own(log)[0][s.INFLIGHT_REQUESTS], e2e_ms_of(log) / 1e3
    known = ~np.isnan(inflight)
    if not known.any() or np.isnan(e2e_s).all() or (log.chosen < 0).all():
        return None
    e2e_s = np.where(np.isnan(e2e_s), np.nanmedian(e2e_s), e2e_s)
    counted = inflight_by_instance(log.arrived_at_s, e2e_s, log.chosen, inflight.shape[1])
    totals = np.where(known, counted, 0).sum(axis=1), np.nansum(inflight, axis=1)
    return float(np.corrcoef(*totals)[0, 1]) if min(each.std() for each in totals) > 0 else None


def _reordered(log: RequestLog, order: Ints) -> RequestLog:
    """Return the same requests in another order."""
    rows = {f.name: _taken(getattr(log, f.name), order) for f in fields(log) if f.name not in _OF_THE_LOG}
    if len(log.block_ids):
        start, count = log.block_offsets[:-1][order], np.diff(log.block_offsets)[order]
        offsets = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], count)
        rows |= {"block_ids": log.block_ids[np.repeat(start, count) + within], "block_offsets": offsets}
    if log.session is not None:
        rows["session"] = numbered_sessions(log.session[order])
    if log.logger is not None:
        rows["logger"] = log.logger[order]
    return replace(log, **rows)  # type: ignore[arg-type]


def _taken(values: object, order: Ints) -> object:
    """Take the rows of one value a request, whatever holds them."""
    if isinstance(values, dict):
        return {name: each[order] for name, each in values.items()}
    return [values[i] for i in order] if isinstance(values, list) else np.asarray(values)[order]
