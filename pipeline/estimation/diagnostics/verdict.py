"""One line that says what a policy's one-step numbers on a log are good for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from lodestar.pipeline.estimation.diagnostics.mean_zero import Family
from lodestar.pipeline.estimation.diagnostics.support import HEAVY, Support
from lodestar.pipeline.estimation.diagnostics.weights import Weights
from lodestar.pipeline.estimation.tails.support import LEAST_ESS, LEAST_TAIL_ESS

__all__ = ["Doubt", "Verdict", "Word", "doubts", "judge"]

Word = Literal["usable", "weak", "direct only", "not usable"]

_FARTHEST: Final = 3.0  # standard errors between mean weight and what is expected
_UNSUPPORTED: Final = 0.01  # share of the policy's choices; more makes weights weak
_MOSTLY_MODEL: Final = 0.1  # share of the policy's choices; for more of them every number is the model's
_TOP: Final = 0.5  # of all weight on the heaviest 1 %


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the numbers are good for.

    Attributes:
        word: 'usable'; 'weak': uneven weights or some missing support, read dm and dr side by side; 'direct only': dm
            alone, as right as the model is; 'not usable': nothing that uses weights, which the log contradicts.
        sentence: the word and why, one line.
        no_tails: quantiles, such as 'p99', whose tails have too few requests to carry a number.
    """

    word: Word
    sentence: str
    no_tails: tuple[str, ...]

    @property
    def carries_weights(self) -> bool:
        """Whether any number that uses weights may be read; if not, dm alone."""
        return self.word in ("usable", "weak")

    @property
    def next_step(self) -> str:
        """What to do where it does not."""
        if self.word == "not usable":
            return "log the probability that each choice was drawn with"
        return "log more, or a policy that explores towards this one"


@dataclass(frozen=True, slots=True)
class Doubt:
    """What right propensities do not explain.

    Attributes:
        what: in words.
        or_unsupported: whether choices of the policy that the log never makes would explain it.
    """

    what: str
    or_unsupported: bool


def judge(weights: Weights, support: Support, families: Sequence[Family], has_model: bool) -> Verdict:
    """Judge by what is worst: propensities in doubt, then too few shared decisions, then uneven weights.

    Args:
        weights: of the policy.
        support: of the log for it.
        families: tests of what right propensities imply.
        has_model: whether the direct method has predictions.
    """
    no_tails = tuple(name for name, ess in weights.tail_ess.items() if ess < LEAST_TAIL_ESS)
    word, why = _reason(weights, support, doubts(weights, support, families), has_model)
    tail = "" if word in ("direct only", "not usable") or not no_tails else _tail(weights, no_tails)
    return Verdict(word, f"{word}: {why}{tail}", no_tails)


def doubts(weights: Weights, support: Support, families: Sequence[Family]) -> list[Doubt]:
    """Return what right propensities do not explain, the mean weight first.

    Where the log holds the propensity of the choice alone, weight that is missing may be that of choices that it never
    makes, or so rarely that none was seen.
    """
    told, found = support.unsupported_ratio is not None, []
    if weights.tested and abs(weights.z) > _FARTHEST:
        what = f"the mean weight is {weights.mean:.3g}, {abs(weights.z):.1f} standard errors from"
        found.append(Doubt(f"{what} {weights.expected_mean:.3g}", not told and weights.z < 0))
    for family in families:
        worst = family.worst
        if worst is not None and family.fails:
            miss = f"{100 * worst.off:+.0f} %" if family.signed else f"{worst.off:+.2f}"
            what = f"{family.name} is off by {miss} at {worst.name}, {abs(worst.z):.1f} standard errors"
            found.append(Doubt(what, not told and (worst.z < 0 or not family.signed)))
    return found


def _reason(weights: Weights, support: Support, doubted: list[Doubt], has_model: bool) -> tuple[Word, str]:
    surely = [doubt for doubt in doubted if not doubt.or_unsupported]
    few = _too_few(weights, support)
    if surely:
        return "not usable", f"{_first(surely)}: the logged propensities are not those that chose"
    if few is not None and has_model:
        return "direct only", few
    if few is not None:
        return "not usable", f"{few}, and there is no model"
    if doubted:
        return (
            "not usable",
            f"{_first(doubted)}: the logged propensities are not those that chose, or the log hardly ever goes where "
            "the policy would",
        )
    uneven = _uneven(weights, support)
    if uneven is not None:
        return "weak", uneven
    return "usable", f"{_counted(weights)}; the weights are what the propensities say"


def _first(doubted: list[Doubt]) -> str:
    return doubted[0].what + (f" (and {len(doubted) - 1} more)" if len(doubted) > 1 else "")


def _too_few(weights: Weights, support: Support) -> str | None:
    if weights.ess < LEAST_ESS:
        return f"{_counted(weights)}, expected {LEAST_ESS:.0f} or more"
    if (support.unsupported_ratio or 0.0) > _MOSTLY_MODEL:
        return f"the log never makes {100 * (support.unsupported_ratio or 0.0):.1f} % of the policy's choices"
    return None


def _uneven(weights: Weights, support: Support) -> str | None:
    if (support.unsupported_ratio or 0.0) > _UNSUPPORTED:
        return f"the log never makes {100 * (support.unsupported_ratio or 0.0):.1f} % of the policy's choices"
    if (support.thin_ratio or 0.0) > _UNSUPPORTED:
        return f"the log hardly ever makes {100 * (support.thin_ratio or 0.0):.1f} % of the policy's choices"
    if weights.largest_ratio > HEAVY:
        return f"{_counted(weights)}; one request carries {100 * weights.largest_ratio:.1f} % of all weight"
    if weights.top_ratio > _TOP:
        return f"{_counted(weights)}; 1 % of the requests carry {100 * weights.top_ratio:.0f} % of all weight"
    return None


def _counted(weights: Weights) -> str:
    counted = f"{weights.ess:,.0f} of {weights.decisions:,}"
    return f"the logged decisions weigh like {counted} (ESS {100 * weights.ess_ratio:.0f} %)"


def _tail(weights: Weights, no_tails: tuple[str, ...]) -> str:
    few = ", ".join(f"{name.upper()} (like {weights.tail_ess[name]:.0f})" for name in no_tails)
    return f"; too few beyond {few}"
