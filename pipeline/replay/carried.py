"""How unsure the fitted engines are, carried into the intervals of the replay.

Every policy is replayed once on the engines of each bootstrap draw of the calibration, under a seed that was also
replayed on the engines as fitted. Their paired difference knows nothing of that seed's luck: its standard deviation
over the draws is what the calibration adds. It is independent of the luck that the interval already has, so the two
are added in squares: half-width = √(half-width² + (z · deviation)²), with Student's t in the place of z where the draws
are fewer than `ENOUGH_SEEDS`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from lodestar.pipeline.estimation.intervals.replayed import ENOUGH_SEEDS, level_of_each
from lodestar.pipeline.replay.cluster import Outcome
from lodestar.pipeline.replay.summary import LATENCIES
from lodestar.pipeline.replay.window import Window

__all__ = ["carry_calibration"]

Floats = NDArray[np.float64]


def carry_calibration(
    rows: Sequence[dict[str, Any]],
    fitted: Mapping[str, Sequence[Outcome]],
    drawn: Mapping[str, Sequence[Outcome]],
    window: Window,
) -> None:
    """Widen the intervals in the rows of a summary, and add the standard deviations.

    Args:
        rows: one a policy, as `summary` makes them.
        fitted: policy → outcomes on the engines as fitted.
        drawn: policy → outcomes on those of the draws, each under the seed of its counterpart in `fitted`.
        window: the requests that count.
    """
    draws = len(next(iter(drawn.values())))
    alone, together = _errors(1, draws), _errors(len(rows) - 1, draws)
    for row in rows:
        name, difference = row["policy"], row["difference"]
        row["calibration_sd"] = {}
        for latency in LATENCIES:
            shift = _shifts(fitted[name], drawn[name], latency, window)
            row["calibration_sd"][latency] = _sd(shift)
            row[latency]["ci95"] = _widened(row[latency]["ci95"], row[latency]["mean"], _sd(shift), alone, least=0.0)
            if difference:
                of, baseline = difference[latency], difference["baseline"]
                shift = shift - _shifts(fitted[baseline], drawn[baseline], latency, window)
                of["ci95"] = _widened(of["ci95"], of["mean"], _sd(shift), together)
        if difference:
            tail = [_shifts(fitted[each], drawn[each], "ttft_ms", window, 0.99) for each in (name, baseline)]
            of = difference["ttft_ms_p99"]
            of["ci95"] = _widened(of["ci95"], of["value"], _sd(tail[0] - tail[1]), together)


def _errors(policies: int, draws: int) -> float:
    """Return the deviate of 95 % for each of so many at once (Šidák): the normal one, or t's of few draws.

    >>> round(_errors(1, 20), 2), round(_errors(1, 2), 2)
    (1.96, 12.71)
    """
    level = level_of_each(policies)
    return float(ndtri(level) if draws >= ENOUGH_SEEDS else stdtrit(draws - 1, level))


def _shifts(
    fitted: Sequence[Outcome], drawn: Sequence[Outcome], name: str, window: Window, level: float | None = None
) -> Floats:
    """Return what each draw changes in the mean, or in a quantile."""
    pairs = zip(drawn, fitted, strict=False)
    return np.array(
        [_statistic(other, name, window, level) - _statistic(own, name, window, level) for other, own in pairs]
    )


def _statistic(run: Outcome, name: str, window: Window, level: float | None) -> float:
    values = getattr(run, name)[window.rows]
    there = values[~np.isnan(values)]
    if not len(there):
        return float("nan")
    return float(there.mean() if level is None else np.quantile(there, level))


def _sd(shifts: Floats) -> float | None:
    known = shifts[~np.isnan(shifts)]
    return float(known.std(ddof=1)) if len(known) > 1 else None


def _widened(
    interval: list[float] | None, value: float | None, sd: float | None, z: float, least: float = -math.inf
) -> list[float] | None:
    """Add a deviation to both sides of an interval around a value, but no further than the least that it can be.

    >>> _widened([7.0, 13.0], 10.0, 4.0, 1.0), _widened([7.0, 13.0], 10.0, 4.0, 4.0, least=0.0)
    ([5.0, 15.0], [0.0, 26.278820596099706])
    """
    if interval is None or value is None or sd is None:
        return interval
    low, high = value - interval[0], interval[1] - value
    return [max(least, value - math.hypot(low, z * sd)), value + math.hypot(high, z * sd)]
