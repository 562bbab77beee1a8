"""What became of a policy that learns, run by run: its curve beside the baseline's and the best heuristic's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.headline.measures import (
    TOLERANCE,
    WINDOW,
    Regret,
    first_s,
    regret,
    sliding_means,
    steady_ms,
    window_ends_s,
)
from lodestar.pipeline.headline.worlds import World

__all__ = ["Learned", "curve_row", "learned", "learning_row"]

Floats = NDArray[np.float64]

_POINTS: Final = 50  # at most, of a curve that is drawn


class Learned(NamedTuple):
    """One run of a policy that learns. Times in seconds of replayed time; infinite: never.

    No window counts that has a request from before the first model decided: those are the cold start's.

    Attributes:
        at_baseline_s: the end of the first window whose mean is at or below the baseline's, before any change.
        steady_s: the same for `TOLERANCE` above its own steady state, before any change.
        below_ratio: share of all windows at or below the baseline's.
        adapted_s: from the change in the middle to the end of the first window, all of it after the change, that is at
            most `TOLERANCE` above the steady state after it; NaN where nothing changes.
        recovered_s: the same for the baseline's window.
        against_baseline: regret against it.
        against_best: the same against the best heuristic.
    """

    at_baseline_s: float
    steady_s: float
    below_ratio: float
    adapted_s: float
    recovered_s: float
    against_baseline: Regret
    against_best: Regret


def learned(
    ttft_ms: Floats, baseline_ms: Floats, best_ms: Floats, world: World, first_model_s: float, window: int = WINDOW
) -> Learned:
    """Measure one run, beside two others on the same draw.

    Args:
        ttft_ms: of the policy that learns, shape (n,), as of the other two.
        baseline_ms: of the paper's baseline.
        best_ms: of the best heuristic.
        world: the draw.
        first_model_s: when the first model decided; infinite: never.
        window: requests of the sliding window.
    """
    at_s, middle = world.cluster.workload.arrived_at_s, world.changed_from
    before, after = slice(0, middle), slice(len(at_s) if middle is None else middle, None)
    at_baseline_s, steady_s = _times_s(ttft_ms[before], baseline_ms[before], at_s[before], first_model_s, window)
    adapted_s = recovered_s = float("nan")
    if middle is not None:
        since_s, from_s = at_s[after] - at_s[middle], first_model_s - float(at_s[middle])
        recovered_s, adapted_s = _times_s(ttft_ms[after], baseline_ms[after], since_s, from_s, window)
    below = sliding_means(ttft_ms, window) <= sliding_means(baseline_ms, window)
    return Learned(
        at_baseline_s, steady_s, float(below.mean()), adapted_s, recovered_s,
        regret(ttft_ms, baseline_ms, at_s), regret(ttft_ms, best_ms, at_s),
    )  # fmt: skip


def _times_s(ttft_ms: Floats, baseline_ms: Floats, at_s: Floats, from_s: float, window: int) -> tuple[float, float]:
    """Return when the curve is first at or below the baseline's, and when near its own end, from a time on."""
    curve, ends_s = sliding_means(ttft_ms, window), window_ends_s(at_s, window)
    begun = at_s[: len(curve)] >= from_s
    at_baseline_s = first_s(begun & (curve <= sliding_means(baseline_ms, window)), ends_s)
    return at_baseline_s, first_s(begun & (curve <= (1 + TOLERANCE) * steady_ms(ttft_ms)), ends_s)


def learning_row(each: Sequence[Learned], first_model_s: Sequence[float]) -> dict[str, Any]:
    """Return the median and the worst of all runs; None where that is never, or not to be told."""
    row: dict[str, Any] = {"seeds": len(each), "first_model_s": _finite(float(np.median(first_model_s)))}
    for name in ("at_baseline_s", "steady_s", "adapted_s", "recovered_s"):
        values = [float(getattr(one, name)) for one in each]
        row |= {name: _finite(_median(values)), f"{name}_worst": _finite(max(values))}
        row |= {f"{name}_never": sum(value == float("inf") for value in values)}
    row["below_ratio"] = float(np.mean([one.below_ratio for one in each]))
    for name in ("against_baseline", "against_best"):
        regrets: list[Regret] = [getattr(one, name) for one in each]
        row |= {
            f"{name}_s": float(np.mean([one.final_s for one in regrets])),
            f"{name}_peak_s": float(np.mean([one.peak_s for one in regrets])),
            f"{name}_peak_at_s": float(np.median([one.peak_at_s for one in regrets])),
        }
    return row


def curve_row(ttft_ms: Floats, worlds: Sequence[World], window: int = WINDOW) -> dict[str, Any]:
    """Return points of the learning curve: the mean over seeds of the sliding means, and of the times they end at."""
    changed_s = [float(each.cluster.workload.arrived_at_s[each.changed_from]) for each in worlds if each.changed_from]
    curve = np.mean([sliding_means(each, window) for each in ttft_ms], axis=0)
    ends_s = [window_ends_s(each.cluster.workload.arrived_at_s, window) for each in worlds[: len(ttft_ms)]]
    every = slice(None, None, -(-len(curve) // _POINTS))
    return {
        "changed_s": float(np.mean(changed_s)) if changed_s else None,
        "at_s": np.mean(ends_s, axis=0)[every].tolist(),
        "mean_ms": curve[every].tolist(),
    }


def _median(values: Sequence[float]) -> float:
    """Return the median; of an even number the upper one, since half-way to never is never."""
    return sorted(values)[len(values) // 2] if not any(map(np.isnan, values)) else float("nan")


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
