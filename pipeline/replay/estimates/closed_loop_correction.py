"""Closed-loop means beside what they are after correction by how far the replay of the log itself is off.

Corrected: V_sim(π) · V_log / V_sim(b), with V_sim(b) the free run of the logging policy b, or the replay of its choices
where it is not known. The ratio is right where the simulator is off by the same factor for every policy, as it is when
all engines are a little slow. It is not where the error depends on the policy: in the queueing world of
docs/validation.md, with a wrong simulator, it helps policies that look at queues and hardly those that live on the
cache. So it stands beside the raw number and never in its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.log import RequestLog
from lodestar.pipeline.estimation.intervals.replayed import replayed_interval
from lodestar.pipeline.estimation.resampling import Resamples, resampled_means, resamples
from lodestar.pipeline.replay.calibration.forced import known_choices
from lodestar.pipeline.replay.cluster import Cluster, Outcome
from lodestar.pipeline.replay.logged_policy import name_among
from lodestar.pipeline.replay.parallel import SERIAL, Mapper
from lodestar.pipeline.replay.routing.contract import Policy
from lodestar.pipeline.replay.window import WARMUP_RATIO, window_of

__all__ = ["Correction", "closed_loop_correction"]

Floats = NDArray[np.float64]

FEWEST: Final = 20  # measured requests, of which a ratio can be taken
_BLOCKS: Final = 20
#: A policy whose requests find so much more or less of their prompts in the cache meets another error of the simulator.
_APART: Final = 0.10


@dataclass(frozen=True, slots=True)
class Correction:
    """Raw and corrected means of every policy.

    Attributes:
        rows: one a policy; empty where nothing was measured to correct by.
        note: what the correction is by, or why there is none.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {"corrected": self.rows, "corrected_note": self.note}


def closed_loop_correction(
    log: RequestLog,
    cluster: Cluster,
    outcomes: Mapping[str, Sequence[Outcome]],
    logging_policy: Policy | None,
    warmup_ratio: float = WARMUP_RATIO,
    seed: int = 0,
    mapper: Mapper = SERIAL,
) -> Correction:
    """Return the mean TTFT of each policy, raw and corrected, over the measured requests after the warm-up.

    The 95 % intervals draw seeds and blocks of requests anew, the same for the policy, the logging policy and the log;
    of one seed there are none.

    Args:
        log: what was logged, in the rows of the cluster's workload.
        cluster: as it was logged, and as the outcomes are of.
        outcomes: policy → its runs, as many for each.
        logging_policy: the one that made the log, where it is known.
        warmup_ratio: share of the requests, from the first on, that is left out.
        seed: of the first run, and of the bootstrap draws.
        mapper: what runs the replays.
    """
    window = window_of(cluster.workload, warmup_ratio)
    logged = log.ttft_ms[window.rows]
    measured = ~np.isnan(logged)
    if measured.sum() < FEWEST:
        return Correction(note=f"{measured.sum()} requests have a TTFT to correct by; expected {FEWEST} or more")
    seeds = range(seed, seed + len(next(iter(outcomes.values()))))
    own, how = _own_runs(log, cluster, outcomes, logging_policy, seeds, mapper)
    ttft = {name: _measured(runs, window.rows, measured) for name, runs in outcomes.items()}
    base = _measured(own, window.rows, measured)
    drawn = resamples(len(seeds), window.requests, -(-window.requests // _BLOCKS), seed=seed)
    in_log = np.tile(np.where(measured, logged, np.nan), (len(seeds), 1))
    factors = resampled_means(in_log, drawn) / resampled_means(base, drawn)
    factor = float(logged[measured].mean() / np.nanmean(base))
    tokens = cluster.workload.prompt_tokens[window.rows]
    hits = _hit_ratio(own, window.rows, tokens)
    rows = []
    for name, runs in outcomes.items():
        apart = _hit_ratio(runs, window.rows, tokens) - hits
        rows.append(_row(name, ttft[name], factor, factors, drawn, apart))
    note = (
        f"corrected: times {factor:.3f}, the logged mean over that of {how}; right where the simulator is off by the "
        "same factor for every policy"
    )
    return Correction(rows, note)


def _own_runs(
    log: RequestLog,
    cluster: Cluster,
    outcomes: Mapping[str, Sequence[Outcome]],
    policy: Policy | None,
    seeds: range,
    mapper: Mapper,
) -> tuple[Sequence[Outcome], str]:
    """Return runs of what made the log, and what they are."""
    if policy is None:
        choices = known_choices(log)
        runs = list(mapper.map(lambda seed: cluster.replay(forced=choices, seed=seed), seeds))
        return runs, "the replay of the logged choices"
    how = f"the replay of {policy.name}, which made the log"
    if (own := name_among(policy, outcomes)) is not None:
        return outcomes[own], how
    return list(mapper.map(lambda seed: cluster.replay(policy, seed=seed), seeds)), how


def _measured(runs: Sequence[Outcome], rows: slice, measured: NDArray[np.bool_]) -> Floats:
    """Return TTFT of the measured requests, NaN for others, shape (seeds, requests)."""
    return np.stack([np.where(measured, run.ttft_ms[rows], np.nan) for run in runs])


def _hit_ratio(runs: Sequence[Outcome], rows: slice, prompt_tokens: NDArray[np.int64]) -> float:
    """Return the share of prompt tokens that the engines found in their caches."""
    return float(np.mean([run.cached_tokens[rows].sum() for run in runs]) / prompt_tokens.sum())


def _row(
    policy: str, ttft_ms: Floats, factor: float, factors: Floats, drawn: Resamples, apart: float
) -> dict[str, Any]:
    raw, means = float(np.nanmean(ttft_ms)), resampled_means(ttft_ms, drawn)
    ends, corrected = (replayed_interval(each, drawn, least=0.0) for each in (means, means * factors))
    by_cache = abs(apart) > _APART
    note = (
        f"its cache hits are {apart:+.0%} of the prompt tokens off those of the log's policy, and the "
        "simulator may be off by another factor: no ground to trust the corrected number more than the raw one"
    )
    return {
        "policy": policy,
        "raw_ttft_ms": raw,
        "raw_ci95": ends and list(ends),
        "corrected_ttft_ms": raw * factor,
        "corrected_ci95": corrected and list(corrected),
        "hit_ratio_apart": apart,
        "error_may_differ": by_cache,
        "note": note if by_cache else "",
    }
