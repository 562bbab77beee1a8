"""What is left where a log cannot carry weights: dm alone, the predictor, and why nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from lodestar.pipeline.estimation.diagnostics.verdict import Verdict
from lodestar.pipeline.estimation.estimate import estimate
from lodestar.pipeline.estimation.one_step import OneStepInput
from lodestar.pipeline.estimation.tails.measures import TailEstimate

__all__ = ["WITHOUT_PROPENSITIES", "direct_row", "direct_tails", "left_out"]

WITHOUT_PROPENSITIES: Final = (
    "direct only: without propensities only dm, the predictor, can speak: no weights, tails, differences or "
    "derivatives; log the probability of every candidate"
)
_INTERVAL: Final = "the interval does not contain the predictor's own error"


def direct_row(rows: OneStepInput, policy: str) -> dict[str, Any]:
    """Return the estimate by dm as a row, which says what its interval leaves out.

    Args:
        rows: logged decisions with predictions, and what the policy would have done.
        policy: its name.
    """
    found = estimate(rows, policy, "dm")
    return replace(found, notes=(*found.notes, _INTERVAL)).to_dict()


def direct_tails(measures: Sequence[TailEstimate], verdict: Verdict) -> list[TailEstimate]:
    """Refuse tails by weights, with what the verdict says; those that are refused already keep their reason."""
    why = f"{verdict.sentence}; only dm, the model, can speak; {verdict.next_step}"
    return [
        each
        if each.estimator == "dm" or each.refused
        else replace(each, value=None, low=None, high=None, refused=why, notes=())
        for each in measures
    ]


def left_out(policy: str, verdict: Verdict) -> str:
    """Say what a policy has no number of, why, and what would help.

    >>> left_out("a", Verdict("direct only", "direct only: like 60 of 399, expected 100 or more", ()))
    'a: direct only: like 60 of 399, expected 100 or more; it has dm alone, and no other estimator, \
difference or derivative; log more, or a policy that explores towards this one'
    """
    return (
        f"{policy}: {verdict.sentence}; it has dm alone, and no other estimator, difference or derivative; "
        f"{verdict.next_step}"
    )
