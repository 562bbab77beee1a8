"""How likely the logged choices were: logged, or 1 / candidates where they look uniform at random."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from lodestar.data import schema as s
from lodestar.data.log import Floats, Ints, RequestLog

__all__ = ["UniformTest", "propensity_of", "uniform_test"]

Bools = NDArray[np.bool_]

FIELDS: Final = (s.HIT_RATIO, s.INFLIGHT_REQUESTS, s.RUNNING_REQUESTS, s.WAITING_REQUESTS, s.KV_USAGE_RATIO)
LEAST_REQUESTS: Final = 500
LEAST_P_VALUE: Final = 0.01
MOST_REQUESTS: Final = 20_000
MOST_CELLS: Final = 200_000  # requests × instances judged; more shows nothing new and takes memory
NEWTON_STEPS: Final = 25


class UniformTest(NamedTuple):
    """A likelihood-ratio test of "every candidate had the same chance".

    Attributes:
        statistic: twice the log-likelihood that a conditional logit gains over equal chances.
        degrees: of freedom, the rank of its regressors.
        p_value: of the statistic under equal chances.
        requests: how many decisions were judged.
    """

    statistic: float
    degrees: int
    p_value: float
    requests: int


def propensity_of(log: RequestLog) -> tuple[Floats, str | None]:
    """Return the probability of each logged choice, with a note where the log itself does not say.

    Equal chances are assumed only where a test over at least 500 decisions that have none does not speak against them;
    it can only see dependence on the snapshot and on the instance, so the note names the assumption. Those that are
    logged must be equal too; else these alone are told. NaN where none holds.
    """
    decided = log.chosen >= 0
    there = decided & ~np.isnan(log.propensity)
    if not decided.any():
        return np.full(len(log), np.nan), "no decisions are logged"
    if (there == decided).all():
        return log.propensity, None
    uniform, found = _uniform(log, decided, there)
    if there.any():  # a few that are all 1 / candidates must not tell less than none
        if uniform is not None and np.allclose(log.propensity[there], uniform[there]):
            return uniform, f"logged as 1 / candidates for {there.sum()} of {decided.sum()} decisions, and {found}"
        return log.propensity, "propensities are logged for some decisions only"
    if uniform is None:
        return np.full(len(log), np.nan), f"no propensities are logged, and {found}"
    return uniform, found


def _uniform(log: RequestLog, decided: Bools, there: Bools) -> tuple[Floats | None, str]:
    """Return 1 / candidates of every decision where a test of those without one does not speak against it."""
    candidates = log.candidate.sum(axis=1)
    judged = np.flatnonzero(decided & ~there & (candidates > 1))
    if len(judged) < LEAST_REQUESTS:
        return None, f"{len(judged)} decisions are too few to test (needs {LEAST_REQUESTS})"
    test = uniform_test(log, judged)
    p = f"= {test.p_value:.2g}" if test.p_value > 0 else "< 1e-300"  # no smaller float is whole
    found = (
        f"likelihood ratio {test.statistic:.1f} on {test.degrees} degrees of freedom, p {p}, "
        f"{test.requests} of {len(judged)} requests tested"
    )
    if test.p_value <= LEAST_P_VALUE:
        return None, f"the choices are not uniform at random ({found})"
    uniform = np.where(decided & (candidates > 0), 1.0 / np.maximum(candidates, 1), np.nan)
    without = int((decided & (candidates == 0)).sum())
    left_out = f"; {without} decisions without candidates have none" if without else ""
    return uniform, f"inferred as 1 / candidates: the choices look uniform at random ({found}){left_out}"


def uniform_test(log: RequestLog, rows: Ints) -> UniformTest:
    """Test whether the choices of these rows depend on the snapshot or prefer an instance.

    Of many rows, evenly spaced ones are judged.
    """
    most = min(MOST_REQUESTS, max(MOST_CELLS // max(len(log.instances), 1), LEAST_REQUESTS))
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(np.int64)]
    regressors, candidate = _regressors(log, rows), log.candidate[rows]
    chosen = log.chosen[rows]
    gain, degrees = _fit(regressors, candidate, chosen)
    return UniformTest(2 * gain, degrees, float(chdtrc(max(degrees, 1), 2 * gain)), len(rows))


def _regressors(log: RequestLog, rows: Ints) -> Floats:
    """Standardised snapshot fields that all candidates have, and one dummy an instance but the first."""
    candidate = log.candidate[rows]
    columns = []
    for name in FIELDS:
        values = log.snapshot[name][rows]
        known = values[candidate]
        if not np.isnan(known).any() and known.std() > 0:
            columns.append(np.where(candidate, (values - known.mean()) / known.std(), 0.0))
    dummies = np.broadcast_to(
        np.eye(len(log.instances))[:, 1:], (len(rows), len(log.instances), len(log.instances) - 1)
    )
    return np.concatenate([np.stack(columns, axis=2), dummies], axis=2) if columns else dummies.copy()


def _fit(x: Floats, candidate: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], chosen: Ints) -> tuple[float, int]:
    """Fit the conditional logit by Newton's method; return the gain in log-likelihood and the rank."""
    rows, beta = np.arange(len(x)), np.zeros(x.shape[2])
    gain, rank = 0.0, 0
    start = _log_likelihood(x, candidate, chosen, beta)[0]
    for _ in range(NEWTON_STEPS):
        likelihood, share = _log_likelihood(x, candidate, chosen, beta)
        mean = np.einsum("nm,nmk->nk", share, x)
        slope = (x[rows, chosen] - mean).sum(axis=0)
        weighted = (np.sqrt(share)[:, :, None] * x).reshape(-1, x.shape[2])
        curvature = weighted.T @ weighted - mean.T @ mean
        step, _, found, _ = np.linalg.lstsq(curvature, slope, rcond=1e-9)
        rank = rank or int(found)
        beta, better = _climb(x, candidate, chosen, beta, step, likelihood)
        gain = better - start
        if better - likelihood < 1e-6:
            break
    return gain, rank


def _climb(
    x: Floats,
    candidate: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    chosen: Ints,
    beta: Floats,
    step: Floats,
    likelihood: float,
) -> tuple[Floats, float]:
    """Take the longest of the halved steps that does not lose likelihood."""
    for halving in range(12):
        moved = beta + step / 2**halving
        better = _log_likelihood(x, candidate, chosen, moved)[0]
        if better >= likelihood:
            return moved, better
    return beta, likelihood


def _log_likelihood(
    x: Floats, candidate: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], chosen: Ints, beta: Floats
) -> tuple[float, Floats]:
    utility = np.where(candidate, x @ beta, -np.inf)
    top = utility.max(axis=1, keepdims=True)
    weight = np.exp(utility - top)
    total = weight.sum(axis=1, keepdims=True)
    own = utility[np.arange(len(x)), chosen] - top[:, 0] - np.log(total[:, 0])
    return float(own.sum()), weight / total
