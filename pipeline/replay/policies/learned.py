"""The learned router: send each request where the latency model expects it to be answered first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lodestar.data.jit import LateFunction
from lodestar.pipeline.replay.routing.compiled import Memory, Parameters, Prefixes, Request, rule_function
from lodestar.pipeline.replay.routing.contract import MODEL, Models, Policy, model_field

__all__ = ["Learned"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


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


@dataclass(frozen=True, slots=True)
class Learned(Policy):
    """The lowest predicted TTFT, ties at random.

    Greedy: it does not count what a choice costs the requests that come after.

    Source: Lodestar, arXiv 2606.00946, with gradient-boosted trees for its network.
    """

    models: Models = model_field()

    name: ClassVar[str] = "learned"
    rule: ClassVar[LateFunction] = _rule
    predictor: ClassVar[int] = MODEL
