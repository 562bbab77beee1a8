"""How an estimator did on many logs of one truth: how far off, and how often its intervals held."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Answer", "Progress", "Scored", "scored"]

Progress = Callable[[str, int, int], None]


class Answer(NamedTuple):
    """What an estimator says of one log: a value and its interval of 95 %."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Scored:
    """One estimator in one setting.

    Attributes:
        setting: where, and of what.
        estimator: its name.
        repetitions: logs.
        refused_ratio: share of the logs of which it told no number.
        truth: what it should tell.
        bias: mean of what it told, less the truth, as a share of the truth; None where all is refused.
        relative_error: root mean square of the errors as a share of the truth; None where all is refused.
        coverage: share of the intervals told that held the truth; None where all is refused.
        coverage_se: standard error of that share; None where all is refused.
    """

    setting: str
    estimator: str
    repetitions: int
    refused_ratio: float
    truth: float
    bias: float | None
    relative_error: float | None
    coverage: float | None
    coverage_se: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self)


def scored(setting: str, estimator: str, answers: Sequence[Answer | None], truth: float) -> Scored:
    """Compare answers, None where refused, with one truth other than 0.

    >>> found = scored("s", "dr", [Answer(11.0, 9.0, 13.0), Answer(12.0, 11.0, 13.0), None], truth=10.0)
    >>> found.coverage, round(found.bias, 3), round(found.relative_error, 3), round(found.refused_ratio, 3)
    (0.5, 0.15, 0.158, 0.333)
    """
    told = [each for each in answers if each is not None]
    refused = 1 - len(told) / len(answers)
    if not told:
        return Scored(setting, estimator, len(answers), refused, truth, None, None, None, None)
    value, low, high = np.array(told).T
    off = (value - truth) / abs(truth)
    share = float(np.mean((low <= truth) & (truth <= high)))
    return Scored(
        setting,
        estimator,
        len(answers),
        refused,
        truth,
        float(off.mean()),
        float(np.sqrt(np.mean(off**2))),
        share,
        float(np.sqrt(share * (1 - share) / len(told))),
    )
