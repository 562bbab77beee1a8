"""Propensities: whether the logged probabilities are those with which the log chose. No policy has a part in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from lodestar.pipeline.estimation.diagnostics.groups import DRAW_BLOCKS, Groups
from lodestar.pipeline.estimation.diagnostics.mean_zero import Family, Sums, family
from lodestar.pipeline.estimation.logged import LoggedDecisions

__all__ = ["Propensities", "Reliability", "calibration", "counts"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_BINS: Final = 10
_APART: Final = 1e-8  # relative; closer probabilities are the same but for rounding
_SAMPLE: Final = 20_000  # decisions, evenly spaced, that tell where to cut


@dataclass(frozen=True, slots=True)
class Reliability:
    """Candidates of about the same logged probability.

    Attributes:
        above: their logged probability is above this, or 0.
        up_to: it is at most this.
        candidates: how many.
        logged_ratio: their mean logged probability.
        picked_ratio: share of them that was chosen.
    """

    above: float
    up_to: float
    candidates: int
    logged_ratio: float
    picked_ratio: float


@dataclass(frozen=True, slots=True)
class Propensities:
    """How logged probabilities and choices agree.

    Attributes:
        families: the tests.
        reliability: by logged probability; empty where the log holds that of the choice alone.
        chi_square: over its rows, None where there are none.
        freedom: its degrees of freedom.
        p: probability of a chi-square as large by luck.
        supported_ratio: estimated share of candidates with a probability above 0, from the choices' alone.
    """

    families: tuple[Family, ...]
    reliability: tuple[Reliability, ...] = ()
    chi_square: float | None = None
    freedom: int = 0
    p: float | None = None
    supported_ratio: float | None = None


def calibration(log: LoggedDecisions, logging: Floats, instance: Groups | None) -> Propensities:
    """Compare logged probabilities with pick rates, by tenths of the expected picks and by instance.

    Formula: chi² = dᵀ V⁺ d, with d the picks found minus expected in each tenth, and V = Σ diag(P) − P Pᵀ over the
    decisions, P the probability that a decision falls in each tenth: picks of one decision exclude each other.

    Args:
        log: the decisions.
        logging: probability that the log gave every candidate, shape (c,).
        instance: candidates by their instance, if known.

    >>> random = np.random.default_rng(0)
    >>> second = random.uniform(0.1, 0.9, 5000)
    >>> chosen = 2 * np.arange(5000) + (random.random(5000) < second)
    >>> logging = np.stack([1 - second, second], axis=1).ravel()
    >>> log = LoggedDecisions(np.ones(5000), np.arange(0, 10_001, 2), chosen, logging[chosen], logging)
    >>> found = calibration(log, logging, None)
    >>> found.families[0].fails, found.freedom, found.p > 0.01
    (False, 9, True)
    """
    tenth, edges = _tenths(log, logging)
    k = len(edges) - 1
    both = log.decision * k + tenth
    shared = np.asarray(np.bincount(both, logging, log.decisions * k), np.float64).reshape(-1, k)
    spread = np.diag(shared.sum(axis=0)) - shared.T @ shared
    sums = _sums_of_tenths(log, tenth, shared)
    families = [family("pick rate by logged probability", [f"tenth {j + 1}" for j in range(k)], sums, DRAW_BLOCKS)]
    if instance is not None:
        families.append(_by_instance(log, logging, instance))
    freedom = int(np.linalg.matrix_rank(spread, tol=1e-6 * log.decisions, hermitian=True))
    square = float(sums.total @ np.linalg.pinv(spread, rcond=1e-6, hermitian=True) @ sums.total) if freedom else 0.0
    p = float(chdtrc(freedom, square)) if freedom else 1.0
    return Propensities(tuple(families), _reliability(sums, edges), square, freedom, p)


def counts(log: LoggedDecisions, instance: Groups | None) -> Propensities:
    """Test what the propensities of the choices alone tell: the mean of 1/p is the number of candidates with p > 0.

    More than the candidates there are means propensities that are too low. Fewer mean propensities that are too high,
    or candidates that the log never chooses, which is no fault of theirs: only more is a failure of the log.

    Args:
        log: with the propensity of each choice.
        instance: candidates by their instance, if known.

    >>> log = LoggedDecisions(np.ones(900), np.arange(0, 2701, 3), 3 * np.arange(900), np.full(900, 0.5))
    >>> round(counts(log, None).supported_ratio, 3)  # two of three candidates are ever chosen
    0.667
    """
    inverse = np.zeros(log.candidates)
    inverse[log.chosen] = 1 / log.propensity
    of_decisions = Groups.one(log.decisions, DRAW_BLOCKS)
    number = log.counts.astype(np.float64)
    sums = Sums.of(of_decisions, 1 / log.propensity - number, number)
    families = [family("1/p by decision", ["all decisions"], sums, DRAW_BLOCKS, more_only=True)]
    if instance is not None:
        named, ones = [f"instance {j}" for j in instance.labels], np.ones(log.candidates)
        sums = Sums.of(instance, inverse - ones, ones)
        families.append(family("1/p by instance", named, sums, DRAW_BLOCKS, more_only=True))
    return Propensities(tuple(families), supported_ratio=float(inverse.sum()) / log.candidates)


def _tenths(log: LoggedDecisions, logging: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Cut the logged probabilities into tenths of the expected picks: tenth of each, shape (c,), and their edges."""
    step = max(1, log.decisions // _SAMPLE)
    some = logging if step == 1 else logging[np.repeat(np.arange(log.decisions) % step == 0, log.counts)]
    ordered = np.sort(some)
    shares = np.cumsum(ordered) / ordered.sum()
    places = np.searchsorted(shares, np.arange(1, _BINS) / _BINS)
    cuts = ordered[np.minimum(places, len(ordered) - 1)]
    cuts = cuts[np.diff(cuts, append=ordered[-1]) > _APART * cuts]  # the others would leave a tenth empty
    tenth = np.zeros(len(logging), np.int8)
    for cut in cuts:
        tenth += logging > cut * (1 + _APART / 2)
    return tenth, np.concatenate([[0.0], cuts, [1.0]])


def _sums_of_tenths(log: LoggedDecisions, tenth: NDArray[np.int8], shared: Floats) -> Sums:
    """Compare the picks in each tenth with the probability of each decision to fall in it, shape (n, k)."""
    k, blocks = shared.shape[1], DRAW_BLOCKS
    block = np.arange(log.decisions) * blocks // log.decisions
    cell = tenth[log.chosen].astype(np.int64) * blocks + block
    expected = np.stack([np.bincount(block, of_tenth, blocks) for of_tenth in shared.T])
    missed = np.bincount(cell, minlength=k * blocks).reshape(k, blocks) - expected
    spread = np.maximum(np.sum(shared * (1 - shared), axis=0), blocks * missed.var(axis=1, ddof=1))
    return Sums(np.bincount(tenth, minlength=k), missed.sum(axis=1), expected.sum(axis=1), spread, np.ones(k))


def _by_instance(log: LoggedDecisions, logging: Floats, instance: Groups) -> Family:
    terms = -logging
    terms[log.chosen] += 1.0
    sums = Sums.of(instance, terms, logging, instance.sums(logging) - instance.sums(logging**2))
    return family("pick rate by instance", [f"instance {j}" for j in instance.labels], sums, instance.blocks)


def _reliability(sums: Sums, edges: Floats) -> tuple[Reliability, ...]:
    columns = (edges[:-1], edges[1:], sums.rows, sums.scale / sums.rows, (sums.scale + sums.total) / sums.rows)
    return tuple(Reliability(*each) for each in zip(*(column.tolist() for column in columns), strict=True))
