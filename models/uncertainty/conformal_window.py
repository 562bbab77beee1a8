"""The arithmetic of `conformal`, row by row: windows kept in order, and what is read from them.

`scores` (groups, window, quantiles) and `censored` (groups, window) hold the newest rows of each slice, oldest first,
and in the last group those of all slices; `rows` says how many. `ordered` and `flags` are the same by size.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.jit import jit

__all__ = ["follow", "observe", "offset_table"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

GAIN: Final = 0.2  # of the feedback, in logits for a miss
TAIL_ROWS: Final = 10  # outermost scores that give the exponential tail
LEAST_TAIL: Final = 0.01  # log units, the tail where the scores are all alike
FEWEST_EVENTS: Final = 3  # measured scores of a window that has a law
BORROWED: Final = 2.0  # pooled scores, over share * (1 - share), that a slice's own are mixed with


@jit
def observe(
    slices: Ints,
    new: Floats,
    new_censored: Bools,
    misses: Floats,
    scores: Floats,
    censored: Bools,
    rows: Ints,
    miscount: Floats,
) -> None:
    """Learn row after row, each judged by the offsets in force just before it."""
    ordered, flags = _sorted(scores, censored, rows)
    stated, aims = np.empty(new.shape[1]), np.empty(new.shape[1])
    for i in range(new.shape[0]):
        of = slices[i]
        _state(of, misses, ordered, flags, rows, miscount, stated, aims)
        _learn(of, new[i], new_censored[i], stated, aims, misses, scores, censored, ordered, flags, rows, miscount)


@jit
def follow(
    slices: Ints,
    new: Floats,
    new_censored: Bools,
    first: int,
    arrived_at_s: Floats,
    finished_at_s: Floats,
    finishing: Ints,
    until_s: float,
    misses: Floats,
    scores: Floats,
    censored: Bools,
    rows: Ints,
    miscount: Floats,
    stated: Floats,
    aims: Floats,
) -> int:
    """State the offsets of every row when it arrives, from the rows that have finished.

    `finishing` are the rows in order of their finish. `stated` and `aims` (n, quantiles) hold those of the `first`
    rows, which were stated before; the others are filled in. At the end all that has finished at `until_s` is learned.
    Returns how many rows were learned: they are the first of `finishing`.
    """
    ordered, flags = _sorted(scores, censored, rows)
    done = 0
    for i in range(first, new.shape[0] + 1):
        now_s = until_s if i == new.shape[0] else arrived_at_s[i]
        while done < i and finished_at_s[finishing[done]] <= now_s:
            j = finishing[done]
            if j >= i:
                break
            _learn(
                slices[j],
                new[j],
                new_censored[j],
                stated[j],
                aims[j],
                misses,
                scores,
                censored,
                ordered,
                flags,
                rows,
                miscount,
            )
            done += 1
        if i < new.shape[0]:
            _state(slices[i], misses, ordered, flags, rows, miscount, stated[i], aims[i])
    return done


@jit
def _state(
    of: int,
    misses: Floats,
    ordered: Floats,
    flags: Bools,
    rows: Ints,
    miscount: Floats,
    stated: Floats,
    aims: Floats,
) -> None:
    """Fill the offsets of a row that arrives, and count the misses that they aim at before they are known.

    Rows in flight then count with what was done about them: without that, a feedback that sees its effect only after
    many rows swings (Smith 1957, closer control of loops with dead time).
    """
    for q in range(misses.shape[0]):
        stated[q] = _offset(of, q, misses[q], ordered, flags, rows, miscount)
        aims[q] = _beyond(misses[q], miscount[of, q])
    for q in range(misses.shape[0]):
        miscount[of, q] += aims[q] - misses[q]


@jit
def _learn(
    of: int,
    new: Floats,
    is_bound: bool,
    stated: Floats,
    aims: Floats,
    misses: Floats,
    scores: Floats,
    censored: Bools,
    ordered: Floats,
    flags: Bools,
    rows: Ints,
    miscount: Floats,
) -> None:
    """Count what the stated offsets missed beyond their aim, and push the row into both of its windows.

    Offsets that are NaN were not stated by the feedback, and are none of its misses. While bounds hide the slice's
    quantile, nobody knows what covers it: but for rows that were measured beyond it, rows count as it was aimed at, so
    that an outage leaves nothing for the feedback to make up for (an integrator that stops while its output is at a
    limit: Astrom and Hagglund 2006, chapter 3.5).
    """
    for q in range(new.shape[0]):
        if np.isnan(stated[q]):
            continue
        missed = 1.0 if new[q] > stated[q] else 0.0
        if (is_bound or missed == 0.0) and _is_hidden(of, q, misses[q], ordered, flags, rows, miscount):
            missed = aims[q]
        elif is_bound and missed == 0.0:
            missed = _missed_beyond(stated[q], new[q], of, q, misses[q], ordered, flags, rows)
        miscount[of, q] += missed - aims[q]
    for group in (of, scores.shape[0] - 1):
        _push(group, new, is_bound, scores, censored, ordered, flags, rows)


@jit
def offset_table(misses: Floats, scores: Floats, censored: Bools, rows: Ints, miscount: Floats, out: Floats) -> None:
    """Fill `out` (slices, quantiles) with the offsets now."""
    ordered, flags = _sorted(scores, censored, rows)
    for of in range(out.shape[0]):
        for q in range(out.shape[1]):
            out[of, q] = _offset(of, q, misses[q], ordered, flags, rows, miscount)


@jit
def _offset(of: int, q: int, miss: float, ordered: Floats, flags: Bools, rows: Ints, miscount: Floats) -> float:
    """Return the blend of the slice's own quantile and that of all, at the level that the feedback asks for."""
    pooled = ordered.shape[0] - 1
    if rows[pooled] == 0:
        return 0.0
    beyond = _beyond(miss, miscount[of, q])
    own = _own_share(rows[of], miss)
    found = (1.0 - own) * _within_reach(ordered[pooled, q], flags[pooled, q], rows[pooled], beyond)
    if rows[of] > 0:
        found += own * _within_reach(ordered[of, q], flags[of, q], rows[of], beyond)
    return found


@jit
def _is_hidden(of: int, q: int, miss: float, ordered: Floats, flags: Bools, rows: Ints, miscount: Floats) -> bool:
    """Say whether the quantile of the slice's own rows is as far as their bounds let it go.

    Bounds in other slices hide nothing: what covers rows that were measured is known, and the feedback makes up for
    what is borrowed from those.
    """
    m = rows[of]
    reach = _reach(ordered[of, q], flags[of, q], m)
    return reach < np.inf and _quantile(ordered[of, q], flags[of, q], m, _beyond(miss, miscount[of, q])) >= reach


@jit
def _within_reach(values: Floats, flags: Bools, m: int, beyond: float) -> float:
    return float(min(_quantile(values, flags, m, beyond), _reach(values, flags, m)))


@jit
def _reach(values: Floats, flags: Bools, m: int) -> float:
    """Return how far the law of a window may be continued: without bounds, without limit.

    With bounds, no farther beyond the last measured score than the measured ones span, but to the largest bound: that
    much is known. Rows that are cut off long after all that was measured, as in an outage, tell that the law has a
    part out there, and not how it goes on; an exponential tail fitted to them has a mean of any size.
    """
    if not flags[:m].any():
        return np.inf
    events, total, first, last = 0, 0.0, 0.0, 0.0
    for i in range(m):
        if flags[i]:
            continue
        first = values[i] if events == 0 else first
        last = values[i]
        total += values[i]
        events += 1
    if events == 0:
        return float(max(values[m - 1], 0.0))  # the head's own word, where that is more
    told = total / events if events < FEWEST_EVENTS else last + max(last - first, LEAST_TAIL)
    return float(max(told, values[m - 1]))


@jit
def _beyond(miss: float, miscount: float) -> float:
    """Return the share of misses that the feedback aims at."""
    return float(1.0 / (1.0 + (1.0 - miss) / miss * np.exp(GAIN * miscount)))


@jit
def _own_share(rows: int, miss: float) -> float:
    return rows / (rows + BORROWED / (miss * (1.0 - miss)))


@jit
def _quantile(values: Floats, flags: Bools, m: int, beyond: float) -> float:
    """Return what the share `beyond` of the window's law exceeds, by Kaplan and Meier where scores are censored.

    The i-th of m scores has i / (m + 1) below it, as in conformal prediction. Infinite, where all but one or two scores
    are bounds: there is no law.
    """
    events = 0
    for i in range(m):
        events += not flags[i]
    if events < FEWEST_EVENTS:
        return values[:m].mean() if events == m else np.inf
    k = min(TAIL_ROWS, (events - 1) // 2)
    survival, seen, last, last_survival = 1.0, 0, 0.0, 1.0
    low_sum = 0.0
    for i in range(m):
        if flags[i]:
            continue
        seen += 1
        survival *= 1.0 - 1.0 / (m + 1 - i)
        if seen <= k:
            low_sum += values[i]
        if seen == k + 1 and beyond >= survival:
            scale = max(values[i] - low_sum / k, LEAST_TAIL)
            return float(values[i] + scale * np.log((1.0 - beyond) / (1.0 - survival)))
        if seen > k + 1 and beyond >= survival:
            part = (last_survival - beyond) / (last_survival - survival)
            return float(last + part * (values[i] - last))
        if seen == events - k:
            return _in_tail(values, flags, m, i, k, survival, beyond)
        last, last_survival = values[i], survival
    return last


@jit
def _in_tail(values: Floats, flags: Bools, m: int, i: int, k: int, survival: float, beyond: float) -> float:
    """Return the same beyond the i-th score, `survival` of the law and k measured scores beyond it.

    Bounds there stretch the exponential law; where Kaplan and Meier tell the quantile it is no more than they say.
    """
    found = float(values[i] + _tail(values, m, i, k) * np.log(survival / beyond))
    if m - i - 1 == k:
        return found
    last, last_survival = values[i], survival
    for j in range(i + 1, m):
        if not flags[j]:
            last, last_survival = values[j], last_survival * (1.0 - 1.0 / (m + 1 - j))
    return min(found, last) if beyond >= last_survival else found


@jit
def _missed_beyond(
    offer: float, bound: float, of: int, q: int, miss: float, ordered: Floats, flags: Bools, rows: Ints
) -> float:
    """Return how likely a score beyond its bound is beyond the offer too."""
    pooled = ordered.shape[0] - 1
    own = _own_share(rows[of], miss)
    above, from_bound = 0.0, 0.0
    for group, weight in ((of, own), (pooled, 1.0 - own)):
        above += weight * _survival(ordered[group, q], flags[group, q], rows[group], offer)
        from_bound += weight * _survival(ordered[group, q], flags[group, q], rows[group], bound)
    return above / from_bound if from_bound > 0.0 else 1.0  # so far out that both are 0 in floating point


@jit
def _survival(values: Floats, flags: Bools, m: int, at: float) -> float:
    """Return how much of the window's law lies beyond a value, with the tail that `_quantile` reads."""
    events = 0
    for i in range(m):
        events += not flags[i]
    k = min(TAIL_ROWS, (events - 1) // 2)
    survival, seen = 1.0, 0
    for i in range(m):
        if values[i] > at:
            break
        if flags[i]:
            continue
        survival *= 1.0 - 1.0 / (m + 1 - i)
        seen += 1
        if events >= FEWEST_EVENTS and seen == events - k:
            return float(survival * np.exp(-(at - values[i]) / _tail(values, m, i, k)))
    return survival


@jit
def _tail(values: Floats, m: int, i: int, k: int) -> float:
    """Return the mean excess over the i-th score, k measured ones beyond it: exponential, with bounds."""
    excess = 0.0
    for j in range(i + 1, m):
        excess += values[j] - values[i]
    return max(excess / k, LEAST_TAIL)


@jit
def _sorted(scores: Floats, censored: Bools, rows: Ints) -> tuple[Floats, Bools]:
    """Return each window's scores in order, (groups, quantiles, window), and which are censored."""
    groups, window, count = scores.shape
    ordered = np.full((groups, count, window), np.nan)
    flags = np.zeros((groups, count, window), dtype=np.bool_)
    for group in range(groups):
        m = rows[group]
        for q in range(count):
            if not censored[group, :m].any():
                ordered[group, q, :m] = np.sort(scores[group, :m, q])
                continue
            for i in range(m):
                _insert(ordered[group, q], flags[group, q], i, scores[group, i, q], censored[group, i])
    return ordered, flags


@jit
def _insert(values: Floats, flags: Bools, m: int, value: float, flag: bool) -> None:
    """Put a score among m in order; of equal ones a censored score comes last, as it lies beyond."""
    i = m
    while i > 0 and (values[i - 1] > value or (values[i - 1] == value and flags[i - 1] and not flag)):
        values[i], flags[i] = values[i - 1], flags[i - 1]
        i -= 1
    values[i], flags[i] = value, flag


@jit
def _remove(values: Floats, flags: Bools, m: int, value: float, flag: bool) -> None:
    i = 0
    while values[i] != value or flags[i] != flag:
        i += 1
    for j in range(i, m - 1):
        values[j], flags[j] = values[j + 1], flags[j + 1]


@jit
def _push(
    group: int,
    score: Floats,
    flag: bool,
    scores: Floats,
    censored: Bools,
    ordered: Floats,
    flags: Bools,
    rows: Ints,
) -> None:
    """Add a row to a window, the oldest leaving where it is full."""
    window, count = scores.shape[1], scores.shape[2]
    m = rows[group]
    if m == window:
        for q in range(count):
            _remove(ordered[group, q], flags[group, q], m, scores[group, 0, q], censored[group, 0])
        scores[group, : m - 1] = scores[group, 1:m].copy()
        censored[group, : m - 1] = censored[group, 1:m].copy()
        m -= 1
    for q in range(count):
        _insert(ordered[group, q], flags[group, q], m, score[q], flag)
    scores[group, m], censored[group, m] = score, flag
    rows[group] = m + 1
