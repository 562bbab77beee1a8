"""When requests arrived, inferred from their order, their latencies and the requests in flight at each decision."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from scipy.linalg import solveh_banded
from scipy.ndimage import median_filter, uniform_filter1d
from scipy.optimize import isotonic_regression
from scipy.sparse import csr_matrix

from lodestar.data.log import Floats, Ints

__all__ = ["Arrivals", "infer_arrivals", "inflight_at_arrival", "inflight_by_instance"]

ROUNDS: Final = 10
SPAN: Final = 8  # residence times over which Little's law is taken
LEAKS_AT: Final = (5, 7)  # rounds at which to look for counters that never return
LEAK_ROWS: Final = 301  # a counter that is off for more than half of so many decisions has leaked
STEPS: Final = 60  # of conjugate gradients, a round
GAP_SPREAD: Final = 2.0  # mean gaps by which a gap may differ from the mean; less makes them too even
SOLVED: Final = 1e-12  # of the first residual is left
SLACK: Final = 0.25  # mean gaps by which a count is early or late
OUTLIER: Final = 3.0  # standard deviations from which on an equation counts less


class Arrivals(NamedTuple):
    """Arrivals in seconds from the first, and by how much each instance's counter was found to be too high, (n, m)."""

    arrived_at_s: Floats
    leaked: Floats


class _Completions(NamedTuple):
    """Request `done` completed between the arrivals of rows `unseen` and `seen`."""

    done: Ints
    unseen: Ints
    seen: Ints


def infer_arrivals(e2e_s: Floats, inflight: Floats, chosen: Ints) -> Arrivals:
    """Infer the arrivals of requests in dispatch order from their latencies and what each met in flight, (n, m).

    The k-th completion on an instance fell between the last decision that counted k - 1 there and the first that
    counted k: one equation a request, `arrival + E2E = middle of two later arrivals`. They are solved together by least
    squares, with gaps held loosely near their mean. That gives the order of completions and the width of the
    intervals, which give the equations again. The first guess is Little's law: a gap is E2E / in flight.

    A burst of decisions does not see itself, so counts err low: later ones bound them. A counter that stays above
    the others' for long lost a completion; the difference is taken off (`leaked`). Totals alone are one instance.

    >>> counts = np.array([[0.0], [1.0], [2.0], [2.0], [2.0], [2.0]])
    >>> infer_arrivals(np.full(6, 10.0), counts, np.zeros(6, dtype=np.int64)).arrived_at_s.round().tolist()
    [0.0, 4.0, 8.0, 12.0, 16.0, 20.0]
    """
    n, instances = inflight.shape
    arrived = _by_littles_law(e2e_s, inflight)
    leaked = np.zeros(inflight.shape)
    before = _dispatched_before(chosen, instances)
    for round_ in range(ROUNDS if n > 2 else 0):
        if round_ in LEAKS_AT and instances > 2:
            leaked = _leaks(inflight - inflight_by_instance(arrived, e2e_s, chosen, instances))
        completions = _completions(before - inflight + leaked, arrived + e2e_s, chosen)
        arrived = _solved(arrived, e2e_s, completions)
    return Arrivals(arrived - arrived[:1], leaked)


def inflight_at_arrival(arrived_at_s: Floats, e2e_s: Floats) -> Ints:
    """Count, at each arrival, the requests before it that have not completed.

    >>> inflight_at_arrival(np.array([0.0, 1.0, 5.0]), np.array([2.0, 2.0, 2.0])).tolist()
    [0, 1, 0]
    """
    completed = np.searchsorted(np.sort(arrived_at_s + e2e_s), arrived_at_s, side="right")
    return np.arange(len(arrived_at_s)) - completed


def inflight_by_instance(arrived_at_s: Floats, e2e_s: Floats, chosen: Ints, instances: int) -> Floats:
    """Count the same on each instance, shape (n, instances).

    >>> inflight_by_instance(np.array([0.0, 1.0, 5.0]), np.array([2.0, 9.0, 2.0]), np.array([0, 1, 0]), 2).tolist()
    [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    """
    counted = _dispatched_before(chosen, instances)
    for j in range(instances):
        finish = np.sort((arrived_at_s + e2e_s)[chosen == j])
        counted[:, j] -= np.minimum(np.searchsorted(finish, arrived_at_s, side="right"), counted[:, j])
    return counted


def _by_littles_law(e2e_s: Floats, inflight: Floats) -> Floats:
    """Add up gaps of E2E / in flight, both averaged over the requests of a few residence times."""
    total = np.nansum(inflight, axis=1)
    rows = int(max(SPAN * total.mean(), SPAN)) if len(total) else 1
    gaps = uniform_filter1d(e2e_s, rows, mode="reflect") / np.maximum(
        uniform_filter1d(total, rows, mode="reflect"), 1.0
    )
    added: Floats = np.cumsum(gaps) - gaps
    return added


def _dispatched_before(chosen: Ints, instances: int) -> Floats:
    sent = (chosen[:, None] == np.arange(instances)).astype(np.float64)
    before: Floats = np.cumsum(sent, axis=0) - sent
    return before


def _leaks(excess: Floats) -> Floats:
    """Find whole numbers by which a counter exceeds what its requests explain, and the other counters show not."""
    row = np.arange(len(excess))
    for j in range(excess.shape[1]):
        known = ~np.isnan(excess[:, j])
        excess[:, j] = np.interp(row, row[known], excess[known, j]) if known.any() else 0.0
    excess = excess - np.median(excess, axis=1, keepdims=True)
    rows = min(LEAK_ROWS, len(excess) // 4 * 2 + 1)
    leaks: Floats = np.round(median_filter(excess, size=(rows, 1), mode="nearest"))
    return leaks


def _completions(completed: Floats, finish: Floats, chosen: Ints) -> _Completions:
    """Match the completions on each instance, in the order of finishing, with the rows that first count them."""
    instances = completed.shape[1]
    nothing = np.zeros(0, dtype=np.int64)
    found = [(nothing, nothing, nothing)]
    for j in range(instances):
        told = np.flatnonzero(~np.isnan(completed[:, j]))
        sent = np.flatnonzero(chosen == j)
        if not len(told) or not len(sent):
            continue
        # Completions only grow: a count that a later one undercuts was too high.
        counted = np.minimum.accumulate(completed[told[::-1], j])[::-1]
        order = sent[np.argsort(finish[sent], kind="stable")]
        first = np.searchsorted(counted, np.arange(1, len(order) + 1), side="left")
        within = (first < len(told)) & (first > 0)
        order, first = order[within], first[within]
        later = told[first] > order
        found.append((order[later], told[first[later] - 1], told[first[later]]))
    return _Completions(*(np.concatenate(columns) for columns in zip(*found, strict=True)))


def _solved(arrived: Floats, e2e_s: Floats, completions: _Completions) -> Floats:
    """Solve for the arrivals that fit the completions, with gaps near their mean; restore the order."""
    n, (done, unseen, seen) = len(arrived), completions
    gap_s = max(float(np.ptp(arrived)) / (n - 1), 1e-9)
    weight = _weights(arrived, e2e_s, completions, gap_s)
    values, columns = np.concatenate([weight, -weight / 2, -weight / 2]), np.concatenate([done, unseen, seen])
    equations = csr_matrix((values, (np.tile(np.arange(len(done)), 3), columns)), shape=(len(done), n))
    smooth = (GAP_SPREAD * gap_s) ** -2
    gradient = equations.T @ (weight * e2e_s[done] + equations @ arrived) + smooth * _curvature(arrived)
    gradient[0] += smooth * gap_s
    gradient[-1] -= smooth * gap_s
    strength = float(np.mean(weight**2)) if len(done) else smooth
    # Slow errors meet the equations as gaps of `lag` requests, fast ones singly: one preconditioner for each.
    lag = np.sqrt(np.mean((seen - done) ** 2.0)) if len(done) else 1.0
    near = _bands(n, smooth, 2 * strength), _bands(n, smooth + strength * float(lag) ** 2, 1e-6 * strength)
    step = _step(equations, smooth, -gradient, near)
    ordered = isotonic_regression(arrived + step).x
    return np.asarray(ordered - ordered[0], dtype=np.float64)


def _weights(arrived: Floats, e2e_s: Floats, completions: _Completions, gap_s: float) -> Floats:
    """Weigh each equation by the width of its interval; one that is far off, as after a lost request, counts less."""
    done, unseen, seen = completions
    width_s, middle = arrived[seen] - arrived[unseen], (arrived[unseen] + arrived[seen]) / 2
    weight = 1 / np.sqrt((SLACK * gap_s) ** 2 + width_s**2 / 12)
    off = weight * (arrived[done] + e2e_s[done] - middle)
    return np.asarray(weight / np.sqrt(1 + (off / OUTLIER) ** 2), dtype=np.float64)


def _step(equations: csr_matrix, smooth: float, right: Floats, near: tuple[Floats, Floats]) -> Floats:
    """Solve the normal equations by preconditioned conjugate gradients.

    By hand, because sums must not depend on the number of threads, as BLAS's do.
    """
    normal = equations.T @ equations
    x, residual = np.zeros_like(right), right
    direction, before, first = np.zeros_like(right), 1.0, 0.0
    for _ in range(STEPS):
        conditioned = solveh_banded(near[0], residual) + solveh_banded(near[1], residual)
        strength = float(np.sum(residual * conditioned))
        direction = conditioned + (strength / before) * direction
        product = normal @ direction + smooth * _curvature(direction)
        energy = float(np.sum(direction * product))
        if strength <= SOLVED * first or energy <= 0:
            break
        length, before, first = strength / energy, strength, max(first, strength)
        x, residual = x + length * direction, residual - length * product
    return x


def _curvature(x: Floats) -> Floats:
    """Apply what the squared gaps have as gradient."""
    gaps = np.diff(x)
    return np.asarray(np.concatenate([[0.0], gaps]) - np.concatenate([gaps, [0.0]]), dtype=np.float64)


def _bands(n: int, smooth: float, weight: float) -> Floats:
    bands = np.zeros((2, n))
    bands[0, 1:] = -smooth
    bands[1] = 2 * smooth + weight
    bands[1, [0, -1]] -= smooth
    return bands
