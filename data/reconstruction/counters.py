"""Snapshot counters that the log left out or got wrong, rebuilt from the stream of requests."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema as s
from lodestar.data.jit import jit
from lodestar.data.log import Floats, Inferred, Ints, RequestLog, Workload
from lodestar.data.reconstruction.own import without_own

__all__ = ["INFERABLE", "complete_snapshot", "drifting"]

#: In the order in which `_count` fills them.
INFERABLE: Final = (
    s.INFLIGHT_REQUESTS,
    s.INFLIGHT_PREFILL_REQUESTS,
    s.INFLIGHT_DECODE_REQUESTS,
    s.PREFILL_TOKENS,
    s.DECODE_TOKENS,
)
IDLE_SHARE: Final = 0.01
FIT: Final = "correlation of the in-flight counts rebuilt likewise with the logged ones"


def complete_snapshot(log: RequestLog, workload: Workload) -> tuple[dict[str, Floats], dict[str, Inferred]]:
    """Fill what a snapshot lacks, point in time; return the fields, each (n, m), and how each one touched was found.

    Only what the requests dispatched earlier had shown by the arrival of this one counts. A counter that is not 0 on
    an instance with nothing in flight, on more than 1 % of such rows, has drifted: it is replaced as a whole. A counter
    logged after the decision loses the request's own contribution.
    Fields that the requests cannot tell (hit ratio, running, waiting, KV usage, last access) stay as logged.
    """
    snapshot, found = without_own(log)
    log = replace(log, snapshot={name: values.copy() for name, values in snapshot.items()})
    drifted = [name for name in INFERABLE if drifting(log, name)]
    for name in drifted:
        snapshot[name][:] = np.nan
    seen = log.candidate | ~log.candidate.any(axis=1, keepdims=True)
    lacking = {name: seen & np.isnan(snapshot[name]) for name in INFERABLE}
    if not any(cells.any() for cells in lacking.values()):
        return snapshot, found
    if not _can_count(log):
        unable = "not logged, and without decisions and TTFT it cannot be inferred"
        return snapshot, found | {name: Inferred(name, unable) for name, cells in lacking.items() if cells.any()}
    counted, left_out = _counted(log, workload), _left_out(log)
    fit = _agreement(counted[0], log.snapshot[s.INFLIGHT_REQUESTS])
    for k, (name, cells) in enumerate(lacking.items()):
        if cells.any():
            snapshot[name][cells] = counted[k][cells]
            cause = (
                "the logged counter drifts" if name in drifted else f"missing on {_percent(cells, seen)} of candidates"
            )
            method = f"{cause}; inferred from the requests dispatched earlier"
            found[name] = Inferred(name, method, FIT if fit is not None else None, fit, left_out)
    return snapshot, found


def _agreement(counted: Floats, logged: Floats) -> float | None:
    """Correlate the in-flight counts rebuilt this way with the logged ones, where there are any."""
    known = ~np.isnan(logged)
    if not known.any() or counted[known].std() == 0 or logged[known].std() == 0:
        return None
    return float(np.corrcoef(counted[known], logged[known])[0, 1])


def drifting(log: RequestLog, name: str) -> bool:
    """Tell whether a counter fails to return to 0 on idle instances."""
    values = log.snapshot[name]
    idle = (log.snapshot[s.INFLIGHT_REQUESTS] == 0) & ~np.isnan(values)
    wrong = np.mean(values[idle] != 0) if idle.any() else 0.0
    known = ~np.isnan(values)
    negative = np.mean(values[known] < 0) if known.any() else 0.0
    return bool(max(wrong, negative) > IDLE_SHARE)


def _can_count(log: RequestLog) -> bool:
    return bool(((log.chosen >= 0) & ~np.isnan(log.ttft_ms)).any())


def _percent(cells: NDArray[np.bool_], seen: NDArray[np.bool_]) -> str:
    return f"{cells.sum() / seen.sum():.0%}"


def _left_out(log: RequestLog) -> str:
    """Say how many requests were dispatched but cannot be followed."""
    lost = int(((log.chosen >= 0) & np.isnan(log.ttft_ms) & np.isnan(log.e2e_ms)).sum())
    return f"{lost} requests without latencies (failed, cancelled or not logged) are in no count" if lost else ""


def _counted(log: RequestLog, workload: Workload) -> Floats:
    first = workload.arrived_at_s + log.ttft_ms / 1e3
    spread = np.where(np.isnan(log.tpot_ms), 0.0, log.tpot_ms) * np.maximum(workload.output_tokens - 1, 0)
    e2e_ms = np.where(np.isnan(log.e2e_ms), log.ttft_ms + spread, log.e2e_ms)
    finish = workload.arrived_at_s + e2e_ms / 1e3
    # Without a TPOT the tokens are taken to come evenly between the first and the last.
    even_s = (finish - first) / np.maximum(workload.output_tokens - 1, 1)
    gap_s = np.where(np.isnan(log.tpot_ms), even_s, log.tpot_ms / 1e3)
    return _count(
        workload.arrived_at_s,
        first,
        finish,
        gap_s,
        workload.prompt_tokens,
        workload.output_tokens,
        log.chosen,
        len(log.instances),
    )


@jit
def _count(
    arrived: Floats,
    first: Floats,
    finish: Floats,
    gap_s: Floats,
    prompt: Ints,
    output: Ints,
    chosen: Ints,
    instances: int,
) -> Floats:
    n = len(arrived)
    out = np.zeros((5, n, instances))
    open_requests, opened = np.empty(n, dtype=np.int64), 0
    for i in range(n):
        now, kept = arrived[i], 0
        for position in range(opened):
            r = open_requests[position]
            if finish[r] <= now:
                continue
            open_requests[kept], kept = r, kept + 1
            j = chosen[r]
            out[0, i, j] += 1
            if np.isnan(first[r]):
                continue  # in flight, but nobody knows in which phase
            if first[r] > now:
                out[1, i, j] += 1
                out[3, i, j] += prompt[r]
            else:
                out[2, i, j] += 1
                tokens = 1.0 if gap_s[r] <= 0 else 1.0 + np.floor((now - first[r]) / gap_s[r])
                out[4, i, j] += min(tokens, output[r])
        opened = kept
        # A request without latencies cannot be followed; one without a decision is nowhere.
        if chosen[i] >= 0 and not np.isnan(finish[i]):
            open_requests[opened], opened = i, opened + 1
    return out
