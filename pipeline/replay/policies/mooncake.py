"""The rule that stands for Mooncake in comparisons: requests there, over a fixed speed of the hardware."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.data.jit import LateFunction
from lodestar.pipeline.replay.routing.compiled import (
    DONE,
    FIRST_TOKEN,
    SENT,
    Event,
    Memory,
    MemoryShape,
    Parameters,
    Prefixes,
    Request,
    notice_function,
    rule_function,
)
from lodestar.pipeline.replay.routing.contract import Fleet, Policy
from lodestar.pipeline.replay.routing.shared_rules import known

__all__ = ["Mooncake"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_RUNNING = schema.SNAPSHOT_FIELDS.index(schema.RUNNING_REQUESTS)
_WAITING = schema.SNAPSHOT_FIELDS.index(schema.WAITING_REQUESTS)
_SEPARATOR: Final = ":"  # the command line separates settings by commas


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
        requests = known(snapshot[j, _RUNNING]) + known(snapshot[j, _WAITING]) + memory.of_instance[j, 0]
        cost[j] = (requests + 1.0) / parameters.of_instance[j, 0]


@notice_function
def _notice(
    event: Event, request: Request, instance: int, prefixes: Prefixes, memory: Memory, parameters: Parameters
) -> None:
    if event.kind == SENT:
        memory.of_request[request.index, 0] = 1.0
        memory.of_instance[instance, 0] += 1.0
    elif event.kind == FIRST_TOKEN or event.kind == DONE:
        memory.of_instance[instance, 0] -= memory.of_request[request.index, 0]
        memory.of_request[request.index, 0] = 0.0


@dataclass(frozen=True, slots=True)
class Mooncake(Policy):
    """The fewest requests, for the speed of the hardware.

    cost = (running + waiting + V + 1) / speed, with the engine's own counts as the router last read them, and V the
    requests that the router sent there and that have no first token yet. The lowest cost wins, ties at random.

    `speeds` are numbers in the order of the instances, separated by colons (``1:1:3``); none: all 1. The published
    table has L20 2.0, A100 3.0 (40 GB) and 3.5, H100 5.0 and 6.0, and 1.0 for all other hardware, A30 and V100 too.

    Source: gangmuk/Lodestar, sub-algorithm ``mooncake`` ("min_expected_latency"), as
    ``pkg/plugins/gateway/algorithms/rl_routing.go`` calls it. When V is released is not in the public files; where
    answers have one token, as in the published runs, first token and end are the same.
    """

    speeds: str = ""

    name: ClassVar[str] = "mooncake"
    fields: ClassVar[tuple[str, ...]] = (schema.RUNNING_REQUESTS, schema.WAITING_REQUESTS)
    rule: ClassVar[LateFunction] = _rule
    notice: ClassVar[LateFunction] = _notice
    memory: ClassVar[MemoryShape] = MemoryShape(of_instance=1, of_request=1)

    def __post_init__(self) -> None:
        """Refuse what is no speed."""
        for text in self.speeds.split(_SEPARATOR) if self.speeds else ():
            if not _is_speed(text):
                raise ConfigError(
                    f"speeds {self.speeds!r} has {text!r}; expected numbers above 0, separated by colons, such as 1:1:3"
                )

    def parameters(self, fleet: Fleet) -> Parameters:
        """Return the speed of each instance.

        Raises:
            ConfigError: there are more or fewer speeds than instances.
        """
        instances = len(fleet.names)
        speeds = [float(text) for text in self.speeds.split(_SEPARATOR)] if self.speeds else [1.0] * instances
        if len(speeds) != instances:
            raise ConfigError(
                f"speeds {self.speeds!r} has {len(speeds)} numbers; expected one for each of {instances} instances"
            )
        return Parameters.of(of_instance=np.array(speeds).reshape(-1, 1))


def _is_speed(text: str) -> bool:
    try:
        return 0.0 < float(text) < math.inf
    except ValueError:
        return False
