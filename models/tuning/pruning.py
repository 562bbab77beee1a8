"""Whether to give a trial up: it is compared with the best one on the very blocks that both were measured on."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["FEWEST_BLOCKS", "clearly_worse"]

Floats = NDArray[np.float64]

FEWEST_BLOCKS: Final = 6
#: One look of at most four: 5 % each is about 12 % in all (Pocock 1977), the share of equals that are given up.
P_VALUE: Final = 0.05


def clearly_worse(difference: Floats) -> bool:
    """Whether losses exceed the best trial's on the same blocks by more than chance, by Wilcoxon's signed ranks.

    It is the rule of Optuna's `WilcoxonPruner`. A median rule compares a trial with others at the same step, and gives
    up those that are bad where the search begins and good elsewhere; pairs have no such step. A trial whose mean is no
    worse stays, whatever its ranks.

    Args:
        difference: the trial's loss less the best one's, one a block.

    >>> clearly_worse(np.array([0.1, 0.2, 0.1, 0.3, 0.2, 0.1]))
    True
    >>> clearly_worse(np.array([0.1, 0.2, 0.1, 0.3, 0.2, -0.4]))
    False
    """
    if len(difference) < FEWEST_BLOCKS or difference.mean() <= 0.0:
        return False
    from scipy.stats import wilcoxon  # half a second, which other commands need not wait for

    return bool(wilcoxon(difference, alternative="greater", zero_method="zsplit").pvalue < P_VALUE)
