"""What every candidate of every decision would really have given: the engines run ahead, as for ``oracle-ttft``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lodestar.data.jit import LateFunction
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.routing.compiled import Memory, Parameters, Prefixes, Request, rule_function
from lodestar.pipeline.replay.routing.contract import ENGINE, Fleet, Policy

__all__ = ["true_ttft_ms"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_FAR_MS = 1e9  # more than any TTFT; small enough that taking it off again leaves a TTFT exact to 1e-6 ms


@rule_function
def _rule(
    request: Request,
    snapshot: Floats,
    predicted_ms: Floats,
    candidates: Ints,
    prefixes: Prefixes,
    memory: Memory,
    parameters: Parameters,
    cost: Floats,
) -> None:
    for j in candidates:
        cost[j] = predicted_ms[j, 0]
        if parameters.integers[request.index, 0] != j:
            cost[j] += 1e9


@dataclass(frozen=True, slots=True)
class _Repeat(Policy):
    """Make the choices of an earlier replay again, and note what the engines would give."""

    chosen: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    name: ClassVar[str] = "repeat"
    rule: ClassVar[LateFunction] = _rule
    predictor: ClassVar[int] = ENGINE

    def parameters(self, fleet: Fleet) -> Parameters:
        return Parameters.of(integers=self.chosen[:, None])


def true_ttft_ms(cluster: Cluster, chosen: NDArray[np.signedinteger], seed: int) -> Floats:
    """Return the TTFT of every candidate at every decision of a replay that chose so, shape (n, m).

    As `foresee` tells it: without what comes later. Later requests share steps with this one, so the TTFT of the chosen
    candidate in the replay differs a little; for all candidates alike, the one told here is taken.
    """
    outcome = cluster.replay(_Repeat(chosen.astype(np.int64)), seed=seed, record=True)
    if not np.array_equal(outcome.instance, chosen):
        raise AssertionError("the replay did not repeat itself")
    return np.where(outcome.costs >= _FAR_MS, outcome.costs - _FAR_MS, outcome.costs)
