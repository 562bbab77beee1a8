"""What a little more of each policy would do to the logged system, by the log and by the calibrated cluster.

The derivative of the mean TTFT towards a policy comes from a log alone, and counts what decisions do to later requests
through queues and caches. It is estimated on the real log and, in the same way, on `RUNS` replays of the logging
policy. A cluster whose engines gain too much or too little from a cache, or queue in another way, leads elsewhere, even
where it gives back the logged latencies.

Both sides have less noise by what no logged decision changes: the mean TTFT of each request over the other replays of
the same arrivals is taken off, and what had been seen before a decision foretells.

What remains may still drown all but the first few requests. A comparison of these alone would pass whatever the queues
and caches do later, so that it is no gate: see `_place`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.data.log import RequestLog
from lodestar.data.reconstruction.reconstruct import complete_snapshot, propensity_of
from lodestar.pipeline.estimation.beyond.derivative import contrast
from lodestar.pipeline.estimation.beyond.known import known_before
from lodestar.pipeline.estimation.beyond.plateau import plateau
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.decisions import score_decisions
from lodestar.pipeline.replay.gates import LIMITS, RUNS, Comparison
from lodestar.pipeline.replay.parallel import AnyPolicy, Mapper
from lodestar.pipeline.replay.routing.contract import Policy
from lodestar.pipeline.replay.window import window_of
from lodestar.reports.numbers import number

__all__ = ["MOST_POLICIES", "MOST_REQUESTS", "derivative_comparisons"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: Each takes `RUNS` replays, and every further gate raises the noise floors of all.
MOST_POLICIES: Final = 6
#: More requests take longer: each is scored by every policy, one by one.
MOST_REQUESTS: Final = 20_000
FEWEST_REQUESTS: Final = 500
_MISSING: Final = 0.01  # of the requests may lack a TTFT; they count as the mean
_FAR: Final = 4.0  # standard errors from 1, beyond which a mean weight is no luck
_SHORT: Final = 0.5  # of the plateau; a shorter horizon tells hardly anything of what later requests pay


@dataclass(frozen=True, slots=True)
class _Side:
    """What the log, or one replay in its place, tells: TTFT and weights of the compared requests.

    Attributes:
        ttft_ms: NaN where there is none, shape (r,).
        weights: of each policy, 0 where the decision is not known, shape (policies, r).
    """

    ttft_ms: Floats
    weights: Floats


def derivative_comparisons(
    log: RequestLog, cluster: Cluster, logging_policy: Policy, policies: Mapping[str, AnyPolicy], mapper: Mapper
) -> tuple[list[Comparison], list[str]]:
    """Compare the derivative towards each policy by the log with that by the cluster; return gates' input, and notes.

    Derivatives are in units of the mean TTFT, the log's and each replay's own: luck that loads a whole run changes both
    alike. An error is the replayed one minus the logged one. Requests that fitted the engines are compared as well:
    what fitted are latencies, not where decisions lead, and the derivative needs them all.

    Args:
        log: what was logged, in the rows of the cluster's workload.
        cluster: as many instances as the log has, fitted to it.
        logging_policy: what made the log.
        policies: by name.
        mapper: what runs the replays.
    """
    first = window_of(cluster.workload).first
    rows = range(first, min(len(log), first + MOST_REQUESTS))
    propensity, _ = propensity_of(log)
    known = _decided(log, propensity)[rows.start : rows.stop]
    if why := _why_not(log, rows, known):
        return [], [f"no derivative is compared: {why}"]
    tried = {name: policy for name, policy in policies.items() if policy != logging_policy}
    scored, notes = _scored(dict(list(tried.items())[:MOST_POLICIES]), log, cluster, rows, propensity, known)
    if len(tried) > MOST_POLICIES:
        notes.append(f"derivatives not compared, to save time: {', '.join(list(tried)[MOST_POLICIES:])}")
    if not scored:
        return [], notes
    real = _Side(log.ttft_ms[rows.start : rows.stop], np.stack(list(scored.values())))
    chosen = [policy for name, policy in tried.items() if name in scored and isinstance(policy, Policy)]
    runs = list(mapper.map(lambda seed: _replayed(cluster, logging_policy, chosen, seed, rows, known), range(RUNS)))
    if any(np.isnan(run.ttft_ms).mean() > _MISSING for run in runs):
        return [], [*notes, "no derivative is compared: too many requests have no TTFT in the replay"]
    sides, found = _filled([real, *runs], np.isnan(real.ttft_ms)), []
    arrived_at_s = cluster.workload.arrived_at_s[rows.start : rows.stop]
    for k, name in enumerate(scored):
        try:
            compared = _compared(name, k, sides, known, arrived_at_s)
        except DataError as error:  # a replay shares no decision with the policy
            compared = f"no derivative towards {name}: {error}"
        if isinstance(compared, Comparison):
            found.append(compared)
        else:
            notes.append(compared)
    return found, notes


def _decided(log: RequestLog, propensity: Floats) -> Bools:
    """Say which requests have a decision among candidates with a propensity."""
    there = log.candidate[np.arange(len(log)), log.chosen]
    return np.asarray((log.chosen >= 0) & there & (propensity > 0))


def _why_not(log: RequestLog, rows: range, known: Bools) -> str:
    """Say why the log tells no derivative, or nothing."""
    if known.sum() < FEWEST_REQUESTS:
        return f"{known.sum()} requests have a decision with a propensity; expected {FEWEST_REQUESTS}. Log more"
    part = slice(rows.start, rows.stop)
    missing = float(np.isnan(log.ttft_ms[part]).mean())
    if missing > _MISSING:
        return f"{missing:.1%} of the requests have no TTFT, and what they paid is not known"
    if not log.candidate[part][known].all():
        return "some instances were candidates for a part of the decisions only, and the replay has them all along"
    return ""


def _scored(
    policies: Mapping[str, AnyPolicy], log: RequestLog, cluster: Cluster, rows: range, propensity: Floats, known: Bools
) -> tuple[dict[str, Floats], list[str]]:
    """Return the weights of the logged decisions under every policy that can be compared, and why others cannot."""
    part = slice(rows.start, rows.stop)
    snapshot, _ = complete_snapshot(log, cluster.workload)
    # Later rows need no score; without a choice they get none.
    heard = replace(log, chosen=np.where(np.arange(len(log)) < rows.stop, log.chosen, -1))
    found, notes = {}, []
    for name, policy in policies.items():
        if not isinstance(policy, Policy):
            notes.append(f"no derivative towards {name}: it is not compiled, and {RUNS} replays of it take too long")
            continue
        if inferred := [field for field in policy.fields if np.isnan(log.snapshot[field][part][known]).any()]:
            notes.append(f"no derivative towards {name}: the log lacks {inferred[0]}, which the replay knows exactly")
            continue
        scored = score_decisions(policy, heard, cluster.workload, snapshot, cluster.fleet)
        w = _weights(scored.probability[part], log.chosen[part], propensity[part], known)
        if np.isnan(w).any():
            reasons = set(scored.not_scored) - {"no decision is logged"}
            notes.append(f"no derivative towards {name}: {'; '.join(sorted(reasons)) or 'it cannot be scored'}")
        elif _strays(w[known]):
            notes.append(
                f"no derivative towards {name}: its weights average {w[known].mean():.2f}, not 1; the log does not "
                "explore what it would do, or its propensities are wrong"
            )
        else:
            found[name] = w
    return found, notes


def _weights(probability: Floats, chosen: NDArray[Any], propensity: Floats, known: Bools) -> Floats:
    """Return target probability over propensity of every known decision, 0 for others."""
    w = np.zeros(len(known))
    at = np.flatnonzero(known)
    w[at] = probability[at, chosen[at]] / propensity[at]
    return w


def _strays(w: Floats) -> bool:
    return abs(float(w.mean()) - 1) > _FAR * float(w.std()) / math.sqrt(len(w)) + 1e-9


def _replayed(
    cluster: Cluster, logging_policy: Policy, policies: list[Policy], seed: int, rows: range, known: Bools
) -> _Side:
    """Replay the logging policy, then ask each policy what it would have done along that very run."""
    run, part = cluster.replay(logging_policy, seed=seed, record=rows), slice(rows.start, rows.stop)
    chosen = run.instance.astype(np.int64)
    propensity = run.probabilities[np.arange(len(rows)), chosen[part]]
    weights = []
    for policy in policies:
        asked = cluster.replay(policy, forced=chosen, seed=seed, record=rows, always=True)
        weights.append(_weights(asked.probabilities, chosen[part], propensity, known))
    return _Side(run.ttft_ms[part], np.stack(weights))


def _filled(sides: list[_Side], unknown: Bools) -> list[_Side]:
    """Give requests without a TTFT the mean of their side; those that the log lacks, on every side."""
    filled = []
    for side in sides:
        lost = unknown | np.isnan(side.ttft_ms)
        filled.append(replace(side, ttft_ms=np.where(lost, side.ttft_ms[~lost].mean(), side.ttft_ms)))
    return filled


def _compared(name: str, k: int, sides: list[_Side], known: Bools, arrived_at_s: Floats) -> Comparison | str:
    """Compare the log, which comes first, with the mean of the runs, and each run with the mean of the others.

    Where all but a small part of what later requests pay is left out, say so instead.
    """
    ttft_ms = np.stack([side.ttft_ms for side in sides])
    total = ttft_ms[1:].sum(axis=0)
    paths = []
    for at, side in enumerate(sides):
        others = total / RUNS if at == 0 else (total - ttft_ms[at]) / (RUNS - 1)
        cost = side.ttft_ms - others
        seen = known_before(cost, arrived_at_s + side.ttft_ms / 1000, arrived_at_s)
        paths.append(contrast(cost, side.weights[k], known.astype(np.float64), known=seen))
    slopes = np.stack([path.values for path in paths]) / ttft_ms.mean(axis=1, keepdims=True)
    horizons = paths[0].horizons
    place, rest = _place(slopes[1:], int(np.median([path.chosen for path in paths])))
    if horizons[place] < _SHORT * horizons[rest]:
        more = " or more" if rest == len(horizons) - 1 else ""
        return (
            f"no derivative towards {name} is compared: at this log's noise only {horizons[place]} of the "
            f"{horizons[rest]}{more} requests over which a decision matters could be; log more requests"
        )
    logged, runs = float(slopes[0, place]), slopes[1:, place]
    error, luck = float(runs.mean()) - logged, float(runs.std(ddof=1))
    return Comparison(
        f"derivative_{name}_error",
        error,
        ((runs.sum() - runs) / (RUNS - 1) - runs).tolist(),
        kind="derivative_error",
        note=f"towards {name}, over {horizons[place]} requests: {number(float(runs.mean()), 2, signed=True)} by the "
        f"replay and {number(logged, 2, signed=True)} by the log, in units of the mean TTFT; "
        f"z = {number(error / luck if luck > 0 else 0.0, 1, signed=True)}",
    )


def _place(runs: Floats, resting: int) -> tuple[int, int]:
    """Choose the horizon: the longest, up to the plateau, at which replays differ by no more than is tolerated.

    Both sides are cut off alike, so that any horizon compares like with like. Beyond this one luck would excuse nearly
    any error; the longer the log, the longer it is. The plateau is that of most paths, or of the mean of the replays if
    that is later: a single path, the log's too, comes to rest wherever its noise hides what follows.

    Args:
        runs: derivatives of the replays, in units of the mean TTFT, shape (runs, k).
        resting: place of the horizon at which most paths come to rest.

    Returns:
        Its place, and that of the plateau: the requests over which a decision matters.

    >>> rising = np.array([0.2, 0.4, 0.4]) + 0.2 * np.array([-1, 1])[:, None] * np.array([0.1, 0.2, 0.3])
    >>> _place(rising, 0), _place(2 * rising, 0), _place(rising, 2)
    ((1, 1), (0, 1), (2, 2))
    """
    mean = runs.mean(axis=0)
    rest = max(resting, plateau(mean, (runs - mean) / math.sqrt(len(runs) * (len(runs) - 1))))
    steady = np.flatnonzero(runs[:, : rest + 1].std(axis=0, ddof=1) <= LIMITS["derivative_error"][0])
    return (int(steady[-1]) if len(steady) else 0), rest
