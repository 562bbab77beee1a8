"""What a log left out: a complete workload, complete snapshots and propensities, each with how it was found."""

from __future__ import annotations

from typing import Final

import numpy as np

from lodestar.data import schema as s
from lodestar.data.arrivals import infer_arrivals, inflight_at_arrival
from lodestar.data.counters import complete_snapshot
from lodestar.data.errors import DataError
from lodestar.data.latencies import e2e_ms_of, tpot_ms_of
from lodestar.data.log import Floats, Ints, RequestLog, Workload
from lodestar.data.prefix_groups import group_blocks, infer_groups, reproduced
from lodestar.data.propensity import propensity_of

__all__ = ["complete_snapshot", "e2e_ms_of", "propensity_of", "tpot_ms_of", "workload_of"]

BLOCK_TOKENS: Final = 16  # of inferred prefixes; vLLM's own block


def workload_of(log: RequestLog, seed: int = 0) -> Workload:
    """Make a log replayable: row i of the workload is row i of the log.

    Nothing here is random; `seed` is part of the signature so that every maker of workloads takes one.
    `Workload.inferred` says for arrivals, blocks and output tokens how each was found where the log left it out.
    """
    if len(log) == 0:
        raise DataError(f"dataset {log.dataset!r} holds no requests; expected one or more. See its rejects")
    inferred: dict[str, str] = {}
    output_tokens = _output_tokens(log, inferred)
    arrived_at_s = _arrivals(log, inferred)
    block_ids, block_offsets, block_tokens = _blocks(log, inferred)
    return Workload(
        arrived_at_s=arrived_at_s,
        prompt_tokens=log.prompt_tokens,
        output_tokens=output_tokens,
        block_ids=block_ids,
        block_offsets=block_offsets,
        block_tokens=block_tokens,
        inferred=inferred,
    )


def _output_tokens(log: RequestLog, inferred: dict[str, str]) -> Ints:
    missing = log.output_tokens < 0
    if not missing.any():
        return log.output_tokens
    decode_ms, tpot_ms = log.e2e_ms - log.ttft_ms, np.where(log.tpot_ms > 0, log.tpot_ms, np.nan)
    told = np.round(1 + decode_ms / tpot_ms)
    told = np.where(missing, np.where(told >= 1, told, np.nan), log.output_tokens)
    if np.isnan(told).all():
        raise DataError(
            f"dataset {log.dataset!r}: no output tokens, and no TTFT, TPOT and E2E to infer them from; "
            "expected either. Ingest a log that has them"
        )
    guessed = np.isnan(told)
    inferred[s.OUTPUT_TOKENS] = (
        f"{missing.sum()} of {len(log)} not logged: 1 + (E2E − TTFT) / TPOT where known, "
        f"else the median of the others ({guessed.sum()} requests)"
    )
    return np.where(guessed, np.nanmedian(told), told).round().astype(np.int64)


def _arrivals(log: RequestLog, inferred: dict[str, str]) -> Floats:
    if not np.isnan(log.arrived_at_s).any():
        if (np.diff(log.arrived_at_s) < 0).any():
            raise DataError(f"dataset {log.dataset!r}: rows are not in the order of arrival. Load it from the store")
        shifted: Floats = log.arrived_at_s - log.arrived_at_s[0]
        return shifted
    inflight, field = _inflight_totals(log)
    e2e_s = _e2e_s(log)
    if inflight is None or e2e_s is None:
        lacking = "in-flight counts" if inflight is None else "latencies"
        raise DataError(
            f"dataset {log.dataset!r}: no arrival times, and no {lacking} to infer them from; expected either. "
            "Ingest a log that has them"
        )
    arrived_at_s = infer_arrivals(e2e_s, inflight)
    fit = _correlation(inflight_at_arrival(arrived_at_s, e2e_s).astype(np.float64), inflight)
    unknown = int(np.isnan(log.e2e_ms).sum())
    inferred["arrivals"] = (
        f"not logged: inferred from the order of dispatch, the latencies and the logged {field}; the totals "
        f"in flight come out with a correlation of {fit:.4f}"
        + (f"; {unknown} requests without E2E count with TTFT and TPOT, or the median" if unknown else "")
    )
    return arrived_at_s


def _inflight_totals(log: RequestLog) -> tuple[Floats | None, str]:
    """Sum what was in flight at each decision; engines' own counts stand in where the router's are missing."""
    sums = {
        s.INFLIGHT_REQUESTS: log.snapshot[s.INFLIGHT_REQUESTS],
        f"{s.RUNNING_REQUESTS} + {s.WAITING_REQUESTS}": log.snapshot[s.RUNNING_REQUESTS]
        + log.snapshot[s.WAITING_REQUESTS],
    }
    rows = np.arange(len(log))
    for field, counts in sums.items():
        told = ~np.isnan(counts).all(axis=1)
        if told.mean() > 0.5:
            return np.interp(rows, rows[told], np.nansum(counts[told], axis=1)), field
    return None, ""


def _e2e_s(log: RequestLog) -> Floats | None:
    e2e_ms = e2e_ms_of(log)
    if np.isnan(e2e_ms).all():
        return None
    return np.where(np.isnan(e2e_ms), np.nanmedian(e2e_ms), e2e_ms) / 1e3


def _correlation(a: Floats, b: Floats) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else float("nan")


def _blocks(log: RequestLog, inferred: dict[str, str]) -> tuple[Ints, Ints, int]:
    if log.block_tokens is not None and len(log.block_ids):
        return *_logged_blocks(log, log.block_tokens), log.block_tokens
    hit_ratio = log.snapshot[s.HIT_RATIO]
    if not (hit_ratio > 0).any():
        inferred["blocks"] = "neither blocks nor cache hits are logged: no request shares a prefix with another"
        return np.zeros(0, dtype=np.int64), np.zeros(len(log) + 1, dtype=np.int64), BLOCK_TOKENS
    groups = infer_groups(log.prompt_tokens, hit_ratio, log.chosen)
    block_ids, block_offsets = group_blocks(groups, log.prompt_tokens, BLOCK_TOKENS)
    share = reproduced(groups, block_offsets, BLOCK_TOKENS, log.prompt_tokens, hit_ratio, log.chosen)
    inferred["blocks"] = (
        f"not logged: {len(groups.size)} groups of requests with a shared prefix inferred from the hit ratios; "
        f"replaying the logged choices reproduces all hits of {share:.1%} of requests within one percentage point"
    )
    return block_ids, block_offsets, BLOCK_TOKENS


def _logged_blocks(log: RequestLog, block_tokens: int) -> tuple[Ints, Ints]:
    """Number the logged blocks 0, 1, …; an engine shares whole blocks only, so a last, partial one is left out."""
    listed = np.diff(log.block_offsets)
    count = np.minimum(listed, log.prompt_tokens // block_tokens)
    within = np.arange(len(log.block_ids)) - np.repeat(log.block_offsets[:-1], listed)
    whole = log.block_ids[within < np.repeat(count, listed)]
    dense = np.unique(whole, return_inverse=True)[1].astype(np.int64)
    return dense, np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
