"""What training reads from the store: labelled rows of each target, and the identity of what was read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import duckdb
import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.data.log import Floats, RequestLog, Workload
from lodestar.data.reconstruction.counters import INFERABLE, drifting
from lodestar.data.reconstruction.latencies import has_no_times
from lodestar.data.reconstruction.lengths import infer_output_tokens
from lodestar.data.reconstruction.own import COUNTED, own_share
from lodestar.data.reconstruction.reconstruct import complete_snapshot, e2e_ms_of, propensity_of, workload_of
from lodestar.data.seen import News, Seen, names_of, news_since, seen_now
from lodestar.data.store import dataset_fingerprint, load_log, open_store
from lodestar.data.workspace import Workspace
from lodestar.features.definitions import FEATURES
from lodestar.features.matrix import chosen_features, decision_features
from lodestar.models.latency import TARGETS
from lodestar.models.rows import Rows, derived_notes, rows_of

__all__ = ["NewData", "TrainingData", "continues", "ids_sha256", "load_new_data", "load_training_data"]

BLOCK: Final = 50_000  # requests whose candidates are in memory at once
WAIT_S: Final = 30.0  # for an ingest that has the store open


@dataclass(frozen=True, slots=True)
class TrainingData:
    """A dataset as training sees it.

    Attributes:
        dataset: its name.
        fingerprint: of its sources.
        request_ids: of all requests, in dispatch order.
        rows: target → labelled rows, for the targets that have any.
        skipped: target → why it has none.
        notes: what was inferred, in words.
        workspace: that it was read from; None where it was made in memory.
        seen: its sources, to know later what is new.
        nature: what kind of log it is; see `_nature`.
    """

    dataset: str
    fingerprint: str
    request_ids: list[str]
    rows: dict[str, Rows]
    skipped: dict[str, str]
    notes: dict[str, str]
    workspace: Workspace | None = None
    seen: Seen | None = None
    nature: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NewData:
    """What a dataset holds beyond what was seen.

    Attributes:
        rows: target → labelled rows of the new requests; they count on from those seen.
        requests: how many new ones there are, with and without a label.
        seen: the dataset as it is now.
        fingerprint: of its sources.
        read: how many requests were read to find out; 0 where nothing was new.
        notes: what was inferred, and why more was read than the new requests and their context.
        broken: why the dataset does not go on from what was seen; then there are no rows.
    """

    rows: dict[str, Rows]
    requests: int
    seen: Seen
    fingerprint: str
    read: int
    notes: dict[str, str]
    broken: str | None = None


def load_training_data(workspace: Workspace, dataset: str, targets: Sequence[str] = TARGETS) -> TrainingData:
    """Read a dataset and compute the features of its decisions; fails if no target has a labelled row."""
    with open_store(workspace, wait_s=WAIT_S) as con:
        log, fingerprint = load_log(con, dataset), dataset_fingerprint(con, dataset)
        seen = seen_now(con, dataset, _longest_s(log))
    rows, skipped, notes = _rows(log, targets)
    if not rows:
        raise DataError(next(iter(skipped.values())))
    return TrainingData(dataset, fingerprint, log.request_id, rows, skipped, notes, workspace, seen, _nature(log))


def load_new_data(
    workspace: Workspace, dataset: str, seen: Seen, nature: Sequence[str], targets: Sequence[str] = TARGETS
) -> NewData:
    """Read what is new in a dataset, with the earlier requests that the snapshots of the new ones depend on.

    Where the log has no arrivals, or what was read does not show the `nature` that the whole log shows, all is read.
    """
    with open_store(workspace, wait_s=WAIT_S) as con:
        fingerprint = dataset_fingerprint(con, dataset)
        news = news_since(con, dataset, seen)
        if news.broken or not len(news.new):
            return NewData({}, 0, seen, fingerprint, 0, news.notes, news.broken)
        log, names, why = _read(con, dataset, seen, news, nature)
        now = seen_now(con, dataset, max(seen.longest_s, _longest_s(log)), seen)
    found, _, notes = _rows(log, targets, seen.requests if has_no_times(log) else 0)
    is_new = np.isin(np.array(log.request_id), names)
    rows = {target: _only_new(rows, is_new, seen.requests) for target, rows in found.items()}
    notes |= news.notes | ({"read in full": why} if why else {})
    return NewData(rows, len(news.new), now, fingerprint, len(log), notes)


def _read(
    con: duckdb.DuckDBPyConnection, dataset: str, seen: Seen, news: News, nature: Sequence[str]
) -> tuple[RequestLog, list[str], str | None]:
    """Return the log, the names of the new requests, and why all was read; None where it was not."""
    names = names_of(con, news.new)
    log = load_log(con, dataset, news.context)
    if seen.newest_at_s is None and not has_no_times(log):
        return load_log(con, dataset), names, "no arrivals are logged: they are inferred from all requests together"
    if (shown := _nature(log)) != tuple(nature):
        here, whole = (", ".join(kind) or "no odd counter" for kind in (shown, nature))
        told = f"the new requests show {here}, the whole log {whole}"
        return load_log(con, dataset), names, told
    return log, names, None


def _only_new(rows: Rows, is_new: NDArray[np.bool_], before: int) -> Rows:
    """Keep the rows of new requests, and number these from `before` on."""
    number = before + np.cumsum(is_new) - 1
    excluded = {why: number[at[is_new[at]]] for why, at in rows.excluded.items()}
    kept = rows.only(is_new[rows.request_index])
    return replace(
        kept,
        request_index=number[kept.request_index],
        requests=before + int(is_new.sum()),
        excluded=excluded,
    )


def _rows(
    log: RequestLog, targets: Sequence[str], first: int = 0
) -> tuple[dict[str, Rows], dict[str, str], dict[str, str]]:
    """Return the rows of each target, why targets have none, and what was inferred; the first is number `first`."""
    log = replace(log, propensity=propensity_of(log)[0])
    snapshot, arrived_at_s, inferred = _completed(log, first)
    features = _chosen(log, snapshot)
    rows: dict[str, Rows] = {}
    skipped: dict[str, str] = {}
    for target in targets:
        try:
            rows[target] = rows_of(log, features, arrived_at_s, target)
        except DataError as error:
            skipped[target] = str(error)
    return rows, skipped, {**inferred, **derived_notes(log)}


def _chosen(log: RequestLog, snapshot: dict[str, Floats]) -> Floats:
    """Return the features of the chosen candidates (n, k), without holding those of all candidates at once."""
    out = np.empty((len(log), len(FEATURES)))
    for start in range(0, len(log), BLOCK):
        block = slice(start, start + BLOCK)
        part = replace(
            log,
            prompt_tokens=log.prompt_tokens[block],
            chosen=log.chosen[block],
            candidate=log.candidate[block],
        )
        states = {name: values[block] for name, values in snapshot.items()}
        out[block] = chosen_features(part, decision_features(part, states))
    return out


def _completed(log: RequestLog, first: int) -> tuple[dict[str, Floats], Floats, dict[str, str]]:
    """Return the snapshots, the arrivals, and what of them was inferred."""
    if has_no_times(log):
        told = (
            "neither they nor the times of finish are logged: each request counts as finished before the next one came"
        )
        return log.snapshot, first + np.arange(len(log), dtype=np.float64), {"arrivals": told}
    workload = workload_of(log) if np.isnan(log.arrived_at_s).any() else _timed(log)
    snapshot, completed = complete_snapshot(log, workload)
    return snapshot, workload.arrived_at_s, {**workload.inferred, **{k: str(found) for k, found in completed.items()}}


def _timed(log: RequestLog) -> Workload:
    """Return what snapshots are completed from where arrivals are logged; prefixes tell nothing of them."""
    output_tokens, lengths = infer_output_tokens(log)
    none = np.zeros(0, dtype=np.int64)
    inferred = {lengths.column: str(lengths)} if lengths else {}
    return Workload(
        log.arrived_at_s,
        log.prompt_tokens,
        output_tokens,
        none,
        np.zeros(len(log) + 1, dtype=np.int64),
        1,
        inferred=inferred,
    )


def _nature(log: RequestLog) -> tuple[str, ...]:
    """Say which counters are not what they seem to be; that takes many requests to tell."""
    inside = [f"{name} with the request itself" for name in COUNTED if own_share(log, name).is_inside]
    return (*inside, *(f"{name} drifting" for name in INFERABLE if drifting(log, name)))


def _longest_s(log: RequestLog) -> float:
    """Return the time from arrival to finish of the longest request; 0 where no finish is known."""
    lasted_ms: Floats = np.concatenate([e2e_ms_of(log), log.cut_off.get("e2e_ms", np.zeros(0))])
    return float(np.nanmax(lasted_ms, initial=0.0)) / 1000.0 if len(lasted_ms) else 0.0


def continues(data: TrainingData, record: dict[str, Any]) -> bool:
    """Say whether the dataset begins with the very requests that the model of this record has seen."""
    told = record.get("seen")
    if told is not None and data.workspace is not None:
        with open_store(data.workspace, wait_s=WAIT_S) as con:
            return news_since(con, data.dataset, Seen.from_dict(told)).broken is None
    return bool(ids_sha256(data.request_ids[: record["requests_seen"]]) == record.get("seen_sha256"))


def ids_sha256(request_ids: Sequence[str]) -> str:
    """Name a sequence of requests.

    >>> ids_sha256(["0", "1"])[:8]
    '1e9987e9'
    """
    return hashlib.sha256("\n".join(request_ids).encode()).hexdigest()
