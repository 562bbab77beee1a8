"""One-step estimators, one file each, by obp's names. What they claim is one-step on logged states."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from lodestar.pipeline.estimation.estimators.dm import dm
from lodestar.pipeline.estimation.estimators.dr import dr
from lodestar.pipeline.estimation.estimators.dr_os import dr_os
from lodestar.pipeline.estimation.estimators.ipw import ipw
from lodestar.pipeline.estimation.estimators.mipw import mipw
from lodestar.pipeline.estimation.estimators.mrdr import mrdr
from lodestar.pipeline.estimation.estimators.sg_dr import sg_dr
from lodestar.pipeline.estimation.estimators.sg_ipw import sg_ipw
from lodestar.pipeline.estimation.estimators.sndr import sndr
from lodestar.pipeline.estimation.estimators.snipw import snipw
from lodestar.pipeline.estimation.estimators.switch_dr import switch_dr
from lodestar.pipeline.estimation.one_step import OneStepInput, Valued

__all__ = ["Estimator", "estimators"]

#: Raises DataError, which names the next step, where the input lacks what it needs.
Estimator = Callable[[OneStepInput], Valued]

_EVERY: Final = (dm, ipw, snipw, dr, sndr, switch_dr, dr_os, sg_ipw, sg_dr, mrdr, mipw)
_TUNED: Final = (switch_dr, dr_os, sg_ipw, sg_dr)


def estimators(block: int | None = None) -> dict[str, Estimator]:
    """Return every one-step estimator by its name; hyper-parameters are chosen by SLOPE.

    Args:
        block: consecutive decisions that count as one in SLOPE; None: as many as `block_of` says.

    >>> list(estimators())
    ['dm', 'ipw', 'snipw', 'dr', 'sndr', 'switch-dr', 'dr-os', 'sg-ipw', 'sg-dr', 'mrdr', 'mipw']
    """
    bound: list[Estimator] = [partial(each, block=block) if each in _TUNED else each for each in _EVERY]
    return {each.__name__.replace("_", "-"): by for each, by in zip(_EVERY, bound, strict=True)}
