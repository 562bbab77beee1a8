"""Which cells are replayed, and how much of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from lodestar.models.engine import EngineModel

__all__ = ["CHANGES", "FLEETS", "LOADS", "NEAR_SATURATION", "SHARING", "Effort", "Spec", "engines_of", "plan", "quick"]

#: Shares of the saturation throughput: the paper's rates lie between the first and the last.
LOADS: Final = (0.5, 0.75, 0.9)
NEAR_SATURATION: Final = 0.9
CHANGED_AT_LOAD: Final = 0.75
SHARING: Final = ("sharing09", "sharing28", "sharing47", "sharing71")
#: What changes in the middle of a run.
CHANGES: Final = ("sharing-shift", "rate-shift", "failure", "scale-out")
FLEETS: Final = ("homogeneous", "heterogeneous")
#: How much slower the slow instances of the heterogeneous fleet are; a V100 with eager execution beside an A30.
SLOWER: Final = 3.0


@dataclass(frozen=True, slots=True)
class Spec:
    """One cell: all that its name says.

    Attributes:
        workload: a preset of `lodestar simulate`, 'conversation', or one of `CHANGES`.
        fleet: of `FLEETS`.
        load: share of the saturation throughput, 0 to 1.
    """

    workload: str
    fleet: str
    load: float

    @property
    def changes(self) -> bool:
        """Say whether something changes in the middle."""
        return self.workload in CHANGES


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is replayed.

    Attributes:
        requests: of a run.
        seeds: runs of each policy; every seed draws other arrivals and prompts.
        trials: settings that the search for each heuristic tries in each cell, its defaults first.
        search_seeds: runs of each trial, of the same cell, drawn under other seeds.
        draws: of the bootstrap.
        published_seeds: runs of `lodestar-published`; 0: it is left out.
        readme_seeds: runs of the same with the settings of its README.
        conversation: file of the Mooncake trace; None: the preset `sessions` stands in.
        first_seed: of the draws.
    """

    requests: int = 8000
    seeds: int = 5
    trials: int = 20
    search_seeds: int = 2
    draws: int = 400
    published_seeds: int = 2
    readme_seeds: int = 1
    conversation: Path | None = None
    first_seed: int = 0


def plan(conversation: bool) -> Iterator[Spec]:
    """Yield all cells: five workloads × loads × fleets, and four changes × fleets.

    >>> len(list(plan(conversation=True)))
    38
    """
    talks = "conversation" if conversation else "sessions"
    for fleet in FLEETS:
        yield from (Spec(workload, fleet, load) for workload in (*SHARING, talks) for load in LOADS)
        yield from (Spec(change, fleet, CHANGED_AT_LOAD) for change in CHANGES)


def quick(conversation: bool) -> Iterator[Spec]:
    """Yield a few of them: two of each fleet.

    >>> [str(spec.workload) for spec in quick(conversation=False)]
    ['sharing47', 'sharing-shift', 'sharing47', 'sharing-shift']
    """
    for spec in plan(conversation):
        if spec.workload in ("sharing47", "sharing-shift") and spec.load == CHANGED_AT_LOAD:
            yield spec


def engines_of(fleet: str) -> list[list[EngineModel]]:
    """Return a fleet as groups of equal engines.

    >>> [len(group) for group in engines_of("heterogeneous")]
    [7, 8]
    """
    fast = EngineModel.preset("a30-qwen2-7b")
    if fleet == "homogeneous":
        return [[fast] * 8]
    slow = replace(fast.slowed(SLOWER), prefix_caching=False, chunked_prefill=False)
    return [[fast] * 7, [slow] * 8]
