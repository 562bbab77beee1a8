"""Coverage: how often nominal 95 % intervals hold a truth that is known, and how wide they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.estimation.intervals.confidence_sequence import RUNNING_AVERAGE, confidence_sequence
from lodestar.pipeline.estimation.intervals.cressie_read import cressie_read
from lodestar.pipeline.estimation.intervals.empirical_bernstein import empirical_bernstein
from lodestar.pipeline.estimation.intervals.interval import Interval
from lodestar.pipeline.estimation.intervals.linearised import linearised_interval
from lodestar.pipeline.estimation.shared_prefixes import SharedPrefixes
from lodestar.pipeline.estimation.tails.support import effective_size
from lodestar.pipeline.validation.bandit_logs import COSTS, SETTINGS, BanditLogs, Setting, bandit_logs

__all__ = [
    "LINEARISED",
    "Coverage",
    "Weighed",
    "counted",
    "coverage_table",
    "covered",
    "dr_interval",
    "dr_rows",
    "snipw_interval",
    "snipw_rows",
]

Floats = NDArray[np.float64]
Progress = Callable[[str, int, int], None]

#: The intervals that estimates are reported with.
LINEARISED: Final = ("ipw", "snipw", "dr")

_OTHERS: Final = ("cressie-read", "empirical-bernstein", "confidence-sequence")


class Weighed(NamedTuple):
    """What the weights of one log are like."""

    ess_ratio: float
    largest: float

    @classmethod
    def of(cls, weight: Floats) -> Weighed:
        """Look at the weights of one log, shape (n,).

        >>> Weighed.of(np.array([0.0, 4.0, 0.0, 0.0]))
        Weighed(ess_ratio=0.25, largest=4.0)
        """
        return cls(effective_size(weight) / len(weight), float(weight.max()))


@dataclass(frozen=True, slots=True)
class Coverage:
    """How often one kind of interval held in one setting.

    Attributes:
        setting: where.
        interval: its kind, or the estimator that it belongs to.
        estimand: what it claims to hold.
        repetitions: logs, each with an interval.
        coverage: share of the intervals that held the truth.
        coverage_se: standard error of that share.
        mean_width: in the unit of the cost.
        truth: what they should hold, on average where it differs from log to log.
        ess_ratio: effective sample size (Σw)² / Σw² of a log over its decisions, on average.
        largest_weight: of all logs.
    """

    setting: str
    interval: str
    estimand: str
    repetitions: int
    coverage: float
    coverage_se: float
    mean_width: float
    truth: float
    ess_ratio: float
    largest_weight: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self)


def coverage_table(
    repetitions: int = 300,
    seed: int = 0,
    progress: Progress | None = None,
    intervals: Sequence[str] = LINEARISED + _OTHERS,
) -> list[Coverage]:
    """Measure the coverage of one-step intervals on independent decisions, in three settings of known truth.

    2000 decisions of 8 candidates; the target always takes one; the logging policy is uniform, uneven, or averse to
    what the target takes. 'confidence-sequence' counts as held if its bounds hold after every single decision.

    Args:
        repetitions: logs a setting.
        seed: of the logs.
        progress: told what is done, how much of it, and of how much.
        intervals: which kinds.
    """
    rows: list[Coverage] = []
    for done, setting in enumerate(SETTINGS):
        logs = bandit_logs(setting, repetitions, seed)
        for name in intervals:
            rows.append(_sequence(setting, logs) if name == "confidence-sequence" else _each(setting, logs, name))
        if progress:
            progress("coverage", done + 1, len(SETTINGS))
    return rows


def covered(
    setting: str,
    name: str,
    found: Sequence[Interval],
    truth: float,
    weighed: Sequence[Weighed],
    estimand: str | None = None,
) -> Coverage:
    """Return how often intervals held one truth.

    Args:
        setting: where.
        name: kind of the intervals.
        found: one a log.
        truth: what they should hold.
        weighed: the weights of each log.
        estimand: of the truth; None: what the intervals themselves claim.
    """
    held = np.array([each.holds(truth) for each in found])
    widths = np.array([each.width for each in found])
    return counted(setting, name, estimand or found[0].estimand, held, widths, truth, weighed)


def snipw_interval(
    cost: Floats, weight: Floats, block: int | None = None, shared: SharedPrefixes | None = None
) -> Interval:
    """Return the linearised interval of Σ w y / Σ w of one log, shape (n,) each.

    >>> found = snipw_interval(np.tile([1.0, 3.0], 50), np.ones(100), block=1)
    >>> f"{found.lower:.2f} to {found.upper:.2f}"
    '1.80 to 2.20'
    """
    return linearised_interval(*snipw_rows(cost, weight), block, shared=shared)


def dr_interval(
    cost: Floats,
    weight: Floats,
    direct: Floats,
    predicted: Floats,
    block: int | None = None,
    shared: SharedPrefixes | None = None,
) -> Interval:
    """Return the linearised interval of the mean of q̂(x, π) + w (y − q̂(x, a)) of one log, shape (n,) each.

    >>> found = dr_interval(np.tile([1.0, 3.0], 50), np.ones(100), np.ones(100), np.ones(100), block=1)
    >>> f"{found.lower:.2f} to {found.upper:.2f}"
    '1.80 to 2.20'
    """
    return linearised_interval(*dr_rows(cost, weight, direct, predicted), block, shared=shared)


def snipw_rows(cost: Floats, weight: Floats) -> tuple[float, Floats]:
    """Return Σ w y / Σ w and the influence of each decision, shape (n,).

    >>> snipw_rows(np.array([1.0, 3.0]), np.ones(2))
    (2.0, array([-1.,  1.]))
    """
    value = float(np.sum(weight * cost) / np.sum(weight))
    return value, weight * (cost - value) / weight.mean()


def dr_rows(cost: Floats, weight: Floats, direct: Floats, predicted: Floats) -> tuple[float, Floats]:
    """Return the mean of q̂(x, π) + w (y − q̂(x, a)) and what it is the mean of, shape (n,).

    >>> dr_rows(np.array([1.0, 3.0]), np.ones(2), np.ones(2), np.ones(2))
    (2.0, array([1., 3.]))
    """
    rows = direct + weight * (cost - predicted)
    return float(rows.mean()), rows


def _each(setting: Setting, logs: BanditLogs, name: str) -> Coverage:
    makers: dict[str, Callable[[int], Interval]] = {
        "ipw": lambda i: _ipw_interval(logs.cost[i], logs.weight[i]),
        "snipw": lambda i: snipw_interval(logs.cost[i], logs.weight[i]),
        "dr": lambda i: dr_interval(logs.cost[i], logs.weight[i], logs.direct[i], logs.predicted[i]),
        "cressie-read": lambda i: cressie_read(logs.cost[i], logs.weight[i], COSTS),
        "empirical-bernstein": lambda i: empirical_bernstein(
            logs.cost[i], logs.weight[i], COSTS, setting.largest_weight
        ),
    }
    found = [makers[name](i) for i in range(len(logs.cost))]
    return covered(setting.name, name, found, logs.truth, [Weighed.of(each) for each in logs.weight])


def _ipw_interval(cost: Floats, weight: Floats) -> Interval:
    rows = weight * cost
    return linearised_interval(float(rows.mean()), rows)


def _sequence(setting: Setting, logs: BanditLogs) -> Coverage:
    """Count a log only if no bound, after however many decisions, missed the running average of that time."""
    found = confidence_sequence(logs.cost, logs.weight, COSTS)
    truth = logs.expected.cumsum(axis=1) / np.arange(1, logs.cost.shape[1] + 1)
    held = np.all((found.lower <= truth) & (truth <= found.upper), axis=1)
    widths = found.upper[:, -1] - found.lower[:, -1]
    name, estimand = "confidence-sequence", f"{RUNNING_AVERAGE}, at every time"
    weighed = [Weighed.of(each) for each in logs.weight]
    return counted(setting.name, name, estimand, held, widths, float(truth[:, -1].mean()), weighed)


def counted(
    setting: str,
    name: str,
    estimand: str,
    held: NDArray[np.bool_],
    widths: Floats,
    truth: float,
    weighed: Sequence[Weighed],
) -> Coverage:
    """Return how often something held, shape (logs,), of whatever width, shape (any,); the rest as for `covered`.

    >>> row = counted("s", "dr", "e", np.array([True, False]), np.array([1.0, 3.0]), 5.0, [Weighed(0.5, 2.0)] * 2)
    >>> row.repetitions, row.coverage, row.mean_width
    (2, 0.5, 2.0)
    """
    share = float(held.mean())
    return Coverage(
        setting,
        name,
        estimand,
        len(held),
        share,
        float(np.sqrt(share * (1 - share) / len(held))),
        float(widths.mean()),
        truth,
        float(np.mean([each.ess_ratio for each in weighed])),
        max(each.largest for each in weighed),
    )
