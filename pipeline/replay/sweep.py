"""The same policies and seeds over clusters that differ in a few settings: every combination of the values given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import polars as pl

from lodestar.pipeline.estimation.intervals.replayed import replayed_interval
from lodestar.pipeline.estimation.resampling import resampled_quantiles, resamples
from lodestar.pipeline.replay.cluster import Cluster, Outcome
from lodestar.pipeline.replay.parallel import SERIAL, AnyPolicy, Mapper, begin
from lodestar.pipeline.replay.summary import Slo, summary
from lodestar.pipeline.replay.sweep_points import Sweep, cluster_at, points

__all__ = ["sweep", "sweep_frame"]

Progress = Callable[[str, int, int], None]
T = TypeVar("T")


def sweep(
    base: Cluster,
    policies: Mapping[str, AnyPolicy],
    seeds: Sequence[int],
    sweeps: Sequence[Sweep],
    baseline: str,
    verdict: str,
    slo: Slo | None = None,
    mapper: Mapper = SERIAL,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Replay every policy and seed at every point.

    Args:
        base: the cluster of all that is not swept.
        policies: by name.
        seeds: the same at every point, so that points can be compared request by request.
        sweeps: what is to vary.
        baseline: the policy that the others are compared with.
        verdict: of the trust gates, which judge the cluster as it was logged.
        slo: latency targets.
        mapper: what runs the replays.
        progress: told what is done, how much of it, and of how much.

    Returns:
        One flat row a point and policy.
    """
    at = points(sweeps)
    clusters = [cluster_at(base, point) for point in at]
    replays = _one_ahead(begin(cluster, policies, seeds, mapper) for cluster in clusters)
    rows = []
    for done, (point, cluster, begun) in enumerate(zip(at, clusters, replays, strict=True), 1):
        outcomes: dict[str, list[Outcome]] = {name: [] for name in policies}
        for name, outcome in begun:
            outcomes[name].append(outcome)
        where = {name.replace("-", "_"): value for name, value in point.items()}
        rows += [{**where, **row, "verdict": verdict} for row in _rows(outcomes, cluster, baseline, slo)]
        if progress:
            progress("sweep", done, len(at))
    return rows


def _one_ahead(items: Iterable[T]) -> Iterator[T]:
    """Make each item before the one ahead of it is handed over, so that cores replay it while that is summed up."""
    source = iter(items)
    made = list(islice(source, 1))
    while made:
        made += islice(source, 1)
        yield made.pop(0)


def sweep_frame(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Return the rows as a frame, the sentences of their flags as one text."""
    return pl.DataFrame([{**row, "flags": "; ".join(row["flags"])} for row in rows], infer_schema_length=None)


def _rows(outcomes: dict[str, list[Outcome]], cluster: Cluster, baseline: str, slo: Slo | None) -> list[dict[str, Any]]:
    found = summary(outcomes, cluster.workload, baseline, slo)
    return [
        {
            "policy": row["policy"],
            **_interval("ttft_mean", row["ttft_ms"]["mean"], row["ttft_ms"]["ci95"]),
            **_interval("ttft_p99", row["ttft_ms"]["p99"], _tail(outcomes[row["policy"]], found)),
            **_difference(row["difference"]),
            "tpot_mean_ms": row["tpot_ms"]["mean"],
            "hit_ratio": row["hit_ratio"],
            "slo_attainment": row["slo_attainment"],
            "flags": row["flags"],
        }
        for row in found["policies"]
    ]


def _tail(runs: list[Outcome], found: Mapping[str, Any]) -> list[float] | None:
    """Return the interval of P99, from the draws that the summary made; None of one seed."""
    window, intervals = found["window"], found["intervals"]
    values = np.stack([run.ttft_ms[window["warmup_requests"] :] for run in runs])
    if np.isnan(values).all():
        return None
    drawn = resamples(len(runs), window["requests"], intervals["block_requests"], intervals["draws"])
    interval = replayed_interval(resampled_quantiles([values], 0.99, drawn)[0], drawn, least=0.0)
    return interval and list(interval)


def _difference(found: Mapping[str, Any] | None) -> dict[str, float | None]:
    mean = {"mean": None, "ci95": None} if found is None else found["ttft_ms"]
    return _interval("ttft_difference", mean["mean"], mean["ci95"])


def _interval(name: str, value: float | None, ci95: Sequence[float] | None) -> dict[str, float | None]:
    low, high = ci95 or (None, None)
    return {f"{name}_ms": value, f"{name}_low_ms": low, f"{name}_high_ms": high}
