"""What a policy that learns while it routes is: settings, and a run that begins knowing nothing.

It is in plain Python, since it trains models between decisions; the cluster asks it once a decision, and it reads what
has finished from the cluster's own records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lodestar.data.log import Workload
from lodestar.pipeline.replay.routing.contract import NOTHING, Fleet

if TYPE_CHECKING:
    from lodestar.pipeline.replay.prefixes import PrefixTree

__all__ = ["LearningPolicy", "LearningRun", "uniform_of_try"]

Floats = NDArray[np.float64]

_GOLDEN: Final = 0.6180339887498949


def uniform_of_try(uniform: float, retries: int) -> float:
    """Return the number that a try of a request draws with: a second one has a number of its own, as in compiled runs.

    >>> uniform_of_try(0.5, 0), round(uniform_of_try(0.5, 1), 3)
    (0.5, 0.118)
    """
    return (uniform + _GOLDEN * retries) % 1.0


@runtime_checkable
class LearningRun(Protocol):
    """One run of a policy that learns.

    Attributes:
        probability: of every instance at the last decision, shape (m,).
        cost: that it gave every instance then, shape (m,).
    """

    probability: Floats
    cost: Floats

    def begin(
        self,
        workload: Workload,
        tree: PrefixTree,
        fleet: Fleet,
        snapshot: Floats,
        clock_s: Floats,
        requests: NDArray[np.void],
        seed: int,
    ) -> None:
        """Begin.

        Args:
            workload: what will be decided on.
            tree: the prefixes of its prompts.
            fleet: the instances.
            snapshot: what the router sees at each decision, shape (m, fields), filled by the cluster.
            clock_s: the time, shape (1,), set by the cluster.
            requests: the cluster's records of all requests; a run reads only what is past by then.
            seed: of its draws and of its training.
        """

    def decide(self, i: int) -> int:
        """Return the instance for request i."""


class LearningPolicy:
    """The settings of such a policy; a subclass is a frozen dataclass whose fields they are."""

    __slots__ = ()

    name: ClassVar[str]
    #: Snapshot fields without which it can't decide.
    fields: ClassVar[tuple[str, ...]] = ()
    #: It brings models of its own.
    predictor: ClassVar[int] = NOTHING

    def fresh(self) -> LearningRun:
        """Return a run that has learned nothing yet."""
        raise NotImplementedError
