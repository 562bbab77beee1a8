"""What a dataset holds, what is inferred and how well, and what it can be used for."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

import duckdb
import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema as s
from lodestar.data.errors import DataError
from lodestar.data.log import Floats, RequestLog, Workload
from lodestar.data.reconstruction.arms import arms_of
from lodestar.data.reconstruction.reconstruct import complete_snapshot, propensity_of, workload_of
from lodestar.data.rejects import rejects_by_reason
from lodestar.data.store import dataset_fingerprint, load_log, open_store
from lodestar.data.traffic import instance_loads, prefix_sharing, propensity_support, rates
from lodestar.data.uses import allowed_uses
from lodestar.data.workspace import Workspace

__all__ = ["inspect_dataset"]

QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
SHOWN_INSTANCES: Final = 5


def inspect_dataset(workspace: Workspace, dataset: str) -> dict[str, Any]:
    """Summarise a dataset, ready for JSON: None stands where the log does not say."""
    with open_store(workspace) as con:
        log = load_log(con, dataset)
        arms = arms_of(con, log)
        stored = _stored(con, dataset)
        fingerprint = dataset_fingerprint(con, dataset)
    workload, no_workload = _workload(log, arms)
    completed = complete_snapshot(log, workload)[1] if workload else {}
    found = [*(workload.found if workload else ()), *completed.values()]
    propensity, note = propensity_of(log)
    return {
        "dataset": dataset,
        "fingerprint": fingerprint,
        "rows": len(log),
        "policy": log.policy,
        "policies": _policies(log),
        "sources": stored["sources"],
        "time": _time(workload, stored["clock"], stored["origin_s"]),
        "rates": rates(workload) if workload else [],
        "prefix_sharing": prefix_sharing(workload) if workload else None,
        s.PROMPT_TOKENS: _quantiles(log.prompt_tokens.astype(np.float64)),
        s.OUTPUT_TOKENS: _quantiles(np.where(log.output_tokens < 0, np.nan, log.output_tokens)),
        **{name: _quantiles(getattr(log, name)) for name in s.OUTCOMES_LATENCIES},
        "instances": _instances(log, stored["gpu"]),
        "coverage": _coverage(log),
        "rejects": stored["rejects"],
        "inferred": {**{one.column: str(one) for one in found}, **_partial(log)},
        "reconstructed": [asdict(one) for one in found],
        "engine_samples": stored["engine_samples"],
        s.PROPENSITY: {
            "known_ratio": _known_ratio(propensity),
            "note": note,
            "support": propensity_support(log, propensity),
        },
        "allows": allowed_uses(log, workload, no_workload, propensity, note),
    }


def _policies(log: RequestLog) -> dict[str, int]:
    """Count the decisions of each logging policy, where there are several."""
    return {} if log.logger is None else {name: int(np.sum(log.logger == k)) for k, name in enumerate(log.loggers)}


def _workload(log: RequestLog, arms: list[RequestLog]) -> tuple[Workload | None, str | None]:
    try:
        return workload_of(log, arms=arms), None
    except DataError as error:
        return None, str(error)


def _stored(con: duckdb.DuckDBPyConnection, dataset: str) -> dict[str, Any]:
    """Read what the arrays of the log leave out."""
    columns = ("file", "format", "version", "licence", "sha256", "bytes", "rows", "stored", "rejected", "clock",
               "first_at_s", "last_at_s", "notes")  # fmt: skip
    named = ", ".join(f'"{column}"' for column in columns)
    sources = con.execute(
        f'SELECT {named} FROM sources WHERE dataset = ? ORDER BY number, "file"', [dataset]
    ).fetchall()
    clock, origin_s = con.execute("SELECT clock, origin_s FROM datasets WHERE dataset = ?", [dataset]).fetchall()[0]
    gpu = con.execute("SELECT instance, gpu FROM instances WHERE dataset = ?", [dataset]).fetchall()
    return {
        "sources": [dict(zip(columns, source, strict=True)) for source in sources],
        "clock": clock,
        "origin_s": origin_s,
        "gpu": dict(gpu),
        "rejects": rejects_by_reason(con, dataset),
        "engine_samples": _samples(con, dataset),
    }


def _time(workload: Workload | None, clock: str | None, origin_s: float | None) -> dict[str, Any]:
    origin = None if origin_s is None else datetime.fromtimestamp(origin_s, tz=UTC).isoformat()
    span_s = float(workload.arrived_at_s[-1]) if workload and len(workload) else None
    rate_per_s = (len(workload) - 1) / span_s if workload and span_s else None
    return {"clock": clock, "origin": origin, "span_s": span_s, "rate_per_s": rate_per_s}


def _quantiles(values: Floats) -> dict[str, float] | None:
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return None
    return {"mean": float(known.mean()), **{name: float(np.quantile(known, q)) for name, q in QUANTILES.items()}}


def _instances(log: RequestLog, gpu: dict[str, str | None]) -> list[dict[str, Any]]:
    requests = np.bincount(log.chosen[log.chosen >= 0], minlength=len(log.instances))
    total = max(int(requests.sum()), 1)
    return [
        {
            "instance": name,
            "gpu": gpu.get(name),
            "requests": int(count),
            "share": float(count / total),
            "candidate_share": float(offered),
            **load,
        }
        for name, count, offered, load in zip(
            log.instances, requests, _candidate_shares(log), instance_loads(log), strict=True
        )
    ]


def _samples(con: duckdb.DuckDBPyConnection, dataset: str) -> list[dict[str, Any]]:
    """Summarise what engines said of themselves, by instance."""
    rows = con.execute(
        """SELECT instance, e.clock, count(*), min(sampled_at_s), max(sampled_at_s), avg(running_requests),
            avg(waiting_requests), max(kv_usage_ratio)
        FROM engine_samples e LEFT JOIN instances i USING (dataset, instance_index)
        WHERE dataset = ? GROUP BY instance, e.clock ORDER BY instance, e.clock""",
        [dataset],
    ).fetchall()
    names = ("instance", "clock", "samples", "first_at_s", "last_at_s", "running_mean", "waiting_mean", "kv_usage_max")
    return [dict(zip(names, row, strict=True)) for row in rows]


def _candidate_shares(log: RequestLog) -> Floats:
    """Return, for each instance, in which share of the decisions with candidates it was one."""
    decisions = max(int(log.candidate.any(axis=1).sum()), 1)
    shares: Floats = log.candidate.sum(axis=0) / decisions
    return shares


def _partial(log: RequestLog) -> dict[str, str]:
    """Name the instances that could be chosen only part of the time: they joined, left or were full."""
    shares = _candidate_shares(log)
    part = [j for j in np.argsort(shares, kind="stable") if 0 < shares[j] < 1]
    if not part:
        return {}
    named = ", ".join(f"{log.instances[j]} in {shares[j]:.1%}" for j in part[:SHOWN_INSTANCES])
    more = f" and {len(part) - SHOWN_INSTANCES} more" if len(part) > SHOWN_INSTANCES else ""
    return {"candidates": f"{len(part)} instances are candidates of some decisions only: {named}{more}"}


def _known_ratio(values: Floats) -> float:
    return float(1 - np.isnan(values).mean()) if values.size else 0.0


def _coverage(log: RequestLog) -> dict[str, float]:
    """Return the share of requests, or of candidates, for which each field is logged."""
    rows = {name: _known_ratio(getattr(log, name)) for name in (s.ARRIVED_AT_S, *s.OUTCOMES_LATENCIES)}
    rows[s.OUTPUT_TOKENS] = _share(log.output_tokens >= 0)
    rows[s.BLOCK_IDS] = _share(np.diff(log.block_offsets) > 0)
    rows["chosen"] = _share(log.chosen >= 0)
    grids = {**log.snapshot, s.PROBABILITY: log.probability}
    return rows | {name: _known_ratio(values[log.candidate]) for name, values in grids.items()}


def _share(known: NDArray[np.bool_]) -> float:
    return float(known.mean()) if known.size else 0.0
