"""Gates: replayed against measured latencies, by what is tolerated and by what luck alone would give.

A gate compares a statistic, such as the error of a mean, with a limit. Up to a fixed size an error is tolerated. Where
the model itself, replayed against itself under other random numbers, strays further than that, no engine could be held
to it, and the limit is that noise floor. Floors hold for all gates at once: of `RUNS` such replays, all but the one
that strays farthest in any gate, in standard deviations, stay within all floors. If the model is true, the log is one
more of these replays, and fails any gate by luck with a probability of 5 %, however many gates there are.

Reference: Barnard 1963, discussion of Bartlett (Monte Carlo tests); Westfall and Young 1993 (the largest of several).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEVEL", "LIMITS", "RUNS", "Comparison", "Gate", "gates_of", "noise_floors"]

Floats = NDArray[np.float64]

#: Replays of the model against itself, always as many: the verdict must not depend on how often policies are replayed.
RUNS: Final = 39
#: Probability of a true model to fail any gate.
LEVEL: Final = 0.05
#: Gate → what is tolerated, and the most that luck may make of it. Tolerated is what an engine model fitted to one real
#: log reaches on later traffic, and what separates the policies people choose between: 10 % in the mean, 20 % in the
#: tail. Luck of the engine counts up to twice as much: a model that needs more is too noisy to foretell anything, and
#: noise could excuse any error. Luck of routing is real however large, and with requests that are all alike, nothing is
#: there to rank.
LIMITS: Final = {
    "forced_ttft_ks": (0.10, 0.20),
    "forced_ttft_wasserstein_over_mean": (0.10, 0.20),
    "forced_ttft_mean_error": (0.10, 0.20),
    "forced_ttft_p50_error": (0.10, 0.20),
    "forced_ttft_p99_error": (0.20, 0.40),
    "forced_tpot_mean_error": (0.10, 0.20),
    "forced_ttft_rank_correlation": (0.80, -1.0),
    "forced_unanswered_ratio": (0.01, 0.01),
    "free_run_ttft_mean_error": (0.10, math.inf),
    "derivative_error": (0.10, math.inf),
    "arm_mean_error": (0.10, 0.20),
    "arm_p99_error": (0.20, 0.40),
}


@dataclass(frozen=True, slots=True)
class Gate:
    """One comparison of replayed with logged outcomes.

    Attributes:
        name: what is compared.
        value: errors are relative and signed: replayed / logged - 1; None where it can't be computed, which fails.
        limit: the largest absolute value that passes; for a correlation, the smallest value.
        passed: whether it passes.
        noise_floor: how far the model strays from itself by luck; for a correlation, how low it gets. None: not known.
        why: the limit is what it is.
    """

    name: str
    value: float | None
    limit: float
    passed: bool
    noise_floor: float | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a gate is to judge.

    Attributes:
        name: of the gate.
        value: of the replay against what was measured.
        by_luck: the same of the replay against each of `RUNS` replays by the model; empty where that says nothing.
        kind: in `LIMITS`, where that is not the name.
        note: to add to why the limit is what it is.
    """

    name: str
    value: float
    by_luck: Sequence[float] = field(default_factory=list)
    kind: str | None = None
    note: str = ""


def gates_of(comparisons: Sequence[Comparison]) -> list[Gate]:
    """Judge every comparison by what is tolerated of its kind and by what luck gives to all of them.

    >>> [gate.passed for gate in gates_of([Comparison("forced_ttft_mean_error", 0.12, [0.01, -0.02] * 20)])]
    [False]
    >>> [gate.passed for gate in gates_of([Comparison("forced_ttft_mean_error", 0.12, [0.01, -0.13] * 20)])]
    [True]
    """
    known = [np.array(each.by_luck or np.full(RUNS, np.nan), dtype=np.float64) for each in comparisons]
    errors = [
        1 - luck if _is_correlation(each.name) else np.abs(luck) for each, luck in zip(comparisons, known, strict=True)
    ]
    return [_gate(each, floor) for each, floor in zip(comparisons, noise_floors(errors), strict=True)]


def noise_floors(errors: Sequence[Floats]) -> list[float | None]:
    """Return for each statistic how far luck takes it, so that all stay within with 1 - `LEVEL`.

    Args:
        errors: one array a statistic, one value a run, the same runs for all; NaN where it cannot be computed.

    >>> noise_floors([np.arange(40.0), np.zeros(40), np.full(40, np.nan)])[1:]
    [0.0, None]
    >>> round(noise_floors([np.tile([0.01, 0.03], 20)])[0], 4)
    0.0303
    """
    told = [each for each in errors if np.isfinite(each).all()]
    farthest = np.sort(np.max([_in_deviations(each) for each in told], axis=0)) if told else np.zeros(1)
    at = farthest[min(math.ceil((1 - LEVEL) * (len(farthest) + 1)), len(farthest)) - 1]
    return [float(each.mean() + at * each.std(ddof=1)) if np.isfinite(each).all() else None for each in errors]


def _in_deviations(errors: Floats) -> Floats:
    """Return how far each is from the mean of the others, in their standard deviations: as the log is from them all."""
    others = len(errors) - 1
    mean = (errors.sum() - errors) / others
    square = ((errors**2).sum() - errors**2) / others
    deviation = np.sqrt(np.maximum(square - mean**2, 0.0) * others / max(1, others - 1))
    scaled: Floats = np.divide(errors - mean, deviation, out=np.zeros_like(errors), where=deviation > 1e-12)
    return scaled


def _gate(found: Comparison, strays: float | None) -> Gate:
    tolerated, most = LIMITS[found.kind or found.name]
    value, more_is_better = found.value, _is_correlation(found.name)
    floor = None if strays is None else 1 - strays if more_is_better else strays
    by_luck = tolerated if floor is None else floor
    limit = max(most, min(tolerated, by_luck)) if more_is_better else min(most, max(tolerated, by_luck))
    passed = value >= limit if more_is_better else abs(value) <= limit
    why = "; ".join(filter(None, (_why(tolerated, limit, floor, more_is_better), found.note)))
    known = bool(np.isfinite(value))
    return Gate(found.name, float(value) if known else None, limit, known and bool(passed), floor, why)


def _is_correlation(name: str) -> bool:
    return name.endswith("correlation")


def _why(tolerated: float, limit: float, floor: float | None, more_is_better: bool) -> str:
    """Say in one sentence where the limit is from."""
    asked = f"{tolerated:.2f} is {'asked' if more_is_better else 'tolerated'}"
    if floor is None:
        return asked
    luck = f"luck alone {'takes it down' if more_is_better else 'goes up'} to {floor:.3f}"
    if limit == tolerated:
        return f"{asked}; {luck}"
    if limit == floor:
        return f"{luck}, so that no engine can be held to {tolerated:.2f}; only larger errors show"
    return f"{asked}; {luck}, but excuses no more than {limit:.2f}"
