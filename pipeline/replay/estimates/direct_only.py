"""What is left where a log cannot carry weights: dm alone, the predictor, and why nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from lodestar.pipeline.estimation.diagnostics.verdict import Verdict
from lodestar.pipeline.estimation.estimate import Estimate
from lodestar.pipeline.estimation.tails.measures import TailEstimate
from lodestar.pipeline.replay.estimates.logged_inputs import FEWEST_REQUESTS

__all__ = ["direct", "direct_tails", "left_out", "without_propensities"]

_INTERVAL: Final = "the interval does not contain the predictor's own error"


def without_propensities(known: int, decisions: int) -> str:
    """Say what a log lacks whose decisions cannot be weighed, and what to log.

    Args:
        known: decisions with a propensity, too few to weigh anything by.
        decisions: that the predictor speaks of.

    >>> without_propensities(40, 2367)
    'direct only: 40 of 2,367 decisions have a propensity; expected 200 or more. Only dm, the predictor, can speak, of \
all 2,367: no weights, tails, differences or derivatives; log the probability of every candidate with every decision'
    """
    if not known:
        return (
            "direct only: without propensities only dm, the predictor, can speak: no weights, tails, differences or "
            "derivatives; log the probability of every candidate"
        )
    return (
        f"direct only: {known:,} of {decisions:,} decisions have a propensity; expected {FEWEST_REQUESTS} or more. "
        f"Only dm, the predictor, can speak, of all {decisions:,}: no weights, tails, differences or derivatives; log "
        "the probability of every candidate with every decision"
    )


def direct(by_dm: Estimate) -> Estimate:
    """Return an estimate by dm that says what its interval leaves out."""
    return replace(by_dm, notes=(*by_dm.notes, _INTERVAL))


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
