"""One-step estimators, one file each. What they claim is one-step on logged states, never a policy's performance."""

from __future__ import annotations

from collections.abc import Callable

from lodestar.pipeline.replay.estimators.dm import dm
from lodestar.pipeline.replay.estimators.dr import dr
from lodestar.pipeline.replay.estimators.one_step import ESTIMAND, OneStepEstimate, OneStepInput
from lodestar.pipeline.replay.estimators.snips import snips

__all__ = ["ESTIMAND", "Estimator", "OneStepEstimate", "OneStepInput", "estimators"]

Estimator = Callable[[OneStepInput, str, int], OneStepEstimate]


def estimators() -> dict[str, Estimator]:
    """Return every one-step estimator by its name.

    >>> list(estimators())
    ['dm', 'snips', 'dr']
    """
    return {"dm": dm, "snips": snips, "dr": dr}
