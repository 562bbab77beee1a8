"""What a log left out: a complete workload, complete snapshots and propensities, each with how it was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from lodestar.data import schema as s
from lodestar.data.errors import DataError
from lodestar.data.log import Floats, Inferred, Ints, RequestLog, Workload
from lodestar.data.reconstruction.arms import aligned, held_out, own_arm
from lodestar.data.reconstruction.counters import complete_snapshot
from lodestar.data.reconstruction.latencies import e2e_ms_of, tpot_ms_of
from lodestar.data.reconstruction.lengths import infer_output_tokens
from lodestar.data.reconstruction.own import without_own
from lodestar.data.reconstruction.prefix_groups import depths_differ, group_blocks, infer_groups_jointly, reproduced
from lodestar.data.reconstruction.propensity import propensity_of

__all__ = ["complete_snapshot", "e2e_ms_of", "propensity_of", "tpot_ms_of", "workload_of"]

BLOCK_TOKENS: Final = 16  # of inferred prefixes; vLLM's own block
LEAKED: Final = 0.05  # of the decisions with a counter that is off are worth a note
MOSTLY: Final = 0.5  # of the decisions must know what was in flight


def workload_of(log: RequestLog, seed: int = 0, arms: Sequence[RequestLog] = ()) -> Workload:
    """Make a log replayable: row i of the workload is row i of the log.

    Nothing here is random; `seed` is part of the signature so that every maker of workloads takes one.
    `arms` are logs of the same requests under other routers (see `arms_of`): they tell prefix groups apart.
    `Workload.inferred` says for arrivals, blocks and output tokens how each was found where the log left it out.
    """
    if len(log) == 0:
        raise DataError(f"dataset {log.dataset!r} holds no requests; expected one or more. See its rejects")
    output_tokens, lengths = infer_output_tokens(log)
    arrived_at_s, arrivals = _arrivals(log)
    block_ids, block_offsets, block_tokens, blocks = _blocks(log, arms)
    told = (*log.found, *(found for found in (lengths, arrivals, blocks) if found))
    return Workload(
        arrived_at_s=arrived_at_s,
        prompt_tokens=log.prompt_tokens,
        output_tokens=output_tokens,
        block_ids=block_ids,
        block_offsets=block_offsets,
        block_tokens=block_tokens,
        session=log.session,
        inferred={found.column: str(found) for found in told},
        found=told,
    )


def _arrivals(log: RequestLog) -> tuple[Floats, Inferred | None]:
    if not np.isnan(log.arrived_at_s).any():
        if (np.diff(log.arrived_at_s) < 0).any():
            raise DataError(f"dataset {log.dataset!r}: rows are not in the order of arrival. Load it from the store")
        shifted: Floats = log.arrived_at_s - log.arrived_at_s[0]
        return shifted, None
    # SciPy's solvers take a while to load, which a log with arrival times need not wait for.
    from lodestar.data.reconstruction.arrivals import infer_arrivals, inflight_by_instance

    inflight, field = _inflight(log)
    e2e_s = _e2e_s(log)
    if inflight is None or e2e_s is None:
        lacking = "in-flight counts" if inflight is None else "latencies"
        raise DataError(
            f"dataset {log.dataset!r}: no arrival times, and no {lacking} to infer them from; expected either. "
            "Ingest a log that has them"
        )
    decided = (log.chosen >= 0).any()
    if not decided:
        inflight = np.where(np.isnan(inflight).all(axis=1), np.nan, np.nansum(inflight, axis=1))[:, None]
    chosen = log.chosen if decided else np.zeros(len(log), dtype=np.int64)
    found = infer_arrivals(e2e_s, inflight, chosen)
    counted = inflight_by_instance(found.arrived_at_s, e2e_s, chosen, inflight.shape[1])
    return found.arrived_at_s, _arrivals_found(log, inflight, field, found.leaked, counted)


def _arrivals_found(log: RequestLog, inflight: Floats, field: str, leaked: Floats, counted: Floats) -> Inferred:
    known = ~np.isnan(inflight)
    fit = _correlation(np.where(known, counted, 0).sum(axis=1), np.nansum(inflight, axis=1))
    unknown = int(np.isnan(log.e2e_ms).sum())
    notes = [f"the totals in flight come out with a correlation of {fit:.4f}"]
    if unknown:
        notes.append(f"{unknown} requests without E2E count with TTFT and TPOT, or the median")
    for j in np.flatnonzero((leaked != 0).mean(axis=0) > LEAKED):
        off, most = leaked[:, j] != 0, leaked[np.abs(leaked[:, j]).argmax(), j]
        notes.append(
            f"the counter of {log.instances[j]} reads up to {abs(most):.0f} {'more' if most > 0 else 'less'} than its "
            f"requests explain in {off.mean():.0%} of the decisions, which was taken into account"
        )
    return Inferred(
        "arrivals",
        f"not logged: inferred from the order of dispatch, the latencies and the logged {field}",
        "share of its counts that the inferred times give back exactly",
        float(np.mean(counted[known] == (inflight - leaked)[known])),
        "; ".join(notes),
    )


def _inflight(log: RequestLog) -> tuple[Floats | None, str]:
    """Return what was in flight at each decision; engines' own counts stand in where the router's are missing."""
    snapshot, _ = without_own(log)
    engines = snapshot[s.RUNNING_REQUESTS] + snapshot[s.WAITING_REQUESTS]
    counts = {
        s.INFLIGHT_REQUESTS: snapshot[s.INFLIGHT_REQUESTS],
        f"{s.RUNNING_REQUESTS} + {s.WAITING_REQUESTS}": engines,
    }
    for field, values in counts.items():
        if values.size and (~np.isnan(values).all(axis=1)).mean() > MOSTLY:
            return values, field
    return None, ""


def _e2e_s(log: RequestLog) -> Floats | None:
    e2e_ms = e2e_ms_of(log)
    if np.isnan(e2e_ms).all():
        return None
    return np.where(np.isnan(e2e_ms), np.nanmedian(e2e_ms), e2e_ms) / 1e3


def _correlation(a: Floats, b: Floats) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else float("nan")


def _blocks(log: RequestLog, others: Sequence[RequestLog]) -> tuple[Ints, Ints, int, Inferred | None]:
    if log.block_tokens is not None and len(log.block_ids):
        return *_logged_blocks(log, log.block_tokens), log.block_tokens, None
    arms = [own_arm(log), *(aligned(log, other) for other in others)]
    if not (arms[0].hit_ratio > 0).any():
        none = Inferred("blocks", "neither blocks nor cache hits are logged: no request shares a prefix with another")
        return np.zeros(0, dtype=np.int64), np.zeros(len(log) + 1, dtype=np.int64), BLOCK_TOKENS, none
    groups = infer_groups_jointly(log.prompt_tokens, arms, BLOCK_TOKENS)
    notes = []
    if others:
        told = held_out(log.prompt_tokens, arms, BLOCK_TOKENS)
        names = ", ".join(other.dataset for other in others)
        notes.append(f"also from {names}, which have the same requests; from these alone: {told:.1%}")
    deeper, levels = depths_differ(arms[0].hit_ratio), len(groups.levels())
    if deeper:
        shown = f"as groups within groups, {levels} levels" if levels > 1 else "which groups do not show"
        notes.append(f"{deeper:.1%} of requests hit deeper on some instances than on others, {shown}")
    return (
        *group_blocks(groups, log.prompt_tokens, BLOCK_TOKENS),
        BLOCK_TOKENS,
        Inferred(
            "blocks",
            f"not logged: {len(groups.size)} groups of requests with a shared prefix inferred from the hit ratios; "
            "the logged choices are replayed through a prefix index",
            "share of requests within one percentage point at every hit",
            reproduced(groups, BLOCK_TOKENS, log.prompt_tokens, arms[0]),
            "; ".join(notes),
        ),
    )


def _logged_blocks(log: RequestLog, block_tokens: int) -> tuple[Ints, Ints]:
    """Number the logged blocks 0, 1, …; an engine shares whole blocks only, so a last, partial one is left out."""
    listed = np.diff(log.block_offsets)
    count = np.minimum(listed, log.prompt_tokens // block_tokens)
    within = np.arange(len(log.block_ids)) - np.repeat(log.block_offsets[:-1], listed)
    whole = log.block_ids[within < np.repeat(count, listed)]
    dense = np.unique(whole, return_inverse=True)[1].astype(np.int64)
    return dense, np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
