"""Coverage of bootstrapped ratios, and of differences between policies that are to hold for all of them at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from lodestar.pipeline.estimation.estimators.dr import dr
from lodestar.pipeline.estimation.intervals.interval import Interval
from lodestar.pipeline.estimation.intervals.ratio_bootstrap import ratio_bootstrap
from lodestar.pipeline.estimation.intervals.simultaneous import Difference, compared
from lodestar.pipeline.estimation.one_step import OneStepInput, direct_values, residuals, weights
from lodestar.pipeline.validation.coverage import Coverage, Weighed, counted, covered
from lodestar.pipeline.validation.ranked_logs import ranked_log, true_cost
from lodestar.pipeline.validation.scored import Progress

__all__ = ["compared_coverage"]

#: Spread of the logging policy's scores, by the names of the settings of `coverage_table`.
_SETTINGS: Final = {"uniform": 0.0, "uneven": 1.0}
_BASELINE: Final = "any"
#: Policies by the rank that they take, after the baseline, which takes any candidate.
_POLICIES: Final[Mapping[str, int | None]] = {_BASELINE: None, "first": 1, "second": 2, "fourth": 4, "last": 7}
_MODEL: Final = 1.4  # times what is expected


def compared_coverage(repetitions: int = 300, seed: int = 0, progress: Progress | None = None) -> list[Coverage]:
    """Measure how often true ratio bootstraps hold, and how often all simultaneous differences of dr do.

    The ratios are snipw and sndr of the policy that takes the cheapest of 7 candidates; the differences those of four
    policies to one that takes any. The model is 40 % too high.

    Args:
        repetitions: logs a setting.
        seed: of the logs.
        progress: told what is done, how much of it, and of how much.
    """
    found: list[Coverage] = []
    for place, (setting, spread) in enumerate(_SETTINGS.items()):
        ratios: dict[str, list[Interval]] = defaultdict(list)
        apart: list[list[Difference]] = []
        weighed: list[Weighed] = []
        for done in range(repetitions):
            made = ranked_log(10_000_000 * seed + done, spread)
            of = {name: made.rows(rank, _MODEL * made.expected) for name, rank in _POLICIES.items()}
            weighed.append(Weighed.of(weights(of["first"])))
            for kind, interval in _ratios(of["first"], done).items():
                ratios[kind].append(interval)
            values = {name: dr(rows) for name, rows in of.items()}
            apart.append(compared(values, _BASELINE, seed=done)[1:])
            if progress:
                progress("compared coverage", place * repetitions + done + 1, len(_SETTINGS) * repetitions)
        found += [covered(setting, name, each, true_cost(1), weighed) for name, each in ratios.items()]
        found.append(_at_once(setting, apart, weighed))
    return found


def _ratios(rows: OneStepInput, seed: int) -> dict[str, Interval]:
    w = weights(rows)
    return {
        "snipw, bootstrap": ratio_bootstrap(w * rows.log.cost, w, seed=seed),
        "sndr, bootstrap": ratio_bootstrap(w * residuals(rows), w, direct_values(rows), seed=seed),
    }


def _at_once(setting: str, apart: Sequence[Sequence[Difference]], weighed: Sequence[Weighed]) -> Coverage:
    """Count a log only if all of its differences hold."""
    truth = {name: true_cost(rank) - true_cost(None) for name, rank in _POLICIES.items()}
    held = np.array([all(each.lower <= truth[each.policy] <= each.upper for each in log) for log in apart])
    differences = [each for log in apart for each in log]
    widths = np.array([each.upper - each.lower for each in differences])
    mean = float(np.mean([truth[each.policy] for each in differences]))
    return counted(setting, "dr, all differences", differences[0].estimand, held, widths, mean, weighed)
