"""What no router can know: the TTFT that the request would really have on each instance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lodestar.data.jit import LateFunction
from lodestar.pipeline.replay.routing.compiled import Memory, Parameters, Prefixes, Request, rule_function
from lodestar.pipeline.replay.routing.contract import ENGINE, Policy

__all__ = ["OracleTtft"]

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
class OracleTtft(Policy):
    """The lowest TTFT that the engines will really give; looks into them, so that no router can be it.

    The simulated engine of every candidate runs ahead with this request until its first token, and is put back: with
    its true cache, queue, batch and lengths of answers, and without what comes later. A mark to measure routers
    against; it is greedy, so that a router which spares later requests can beat it in the mean.
    """

    name: ClassVar[str] = "oracle-ttft"
    rule: ClassVar[LateFunction] = _rule
    predictor: ClassVar[int] = ENGINE
