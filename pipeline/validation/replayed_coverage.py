"""Coverage of block intervals on recorded replays, for the value over traffic like the logged one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

import numpy as np

from lodestar.pipeline.estimation.intervals.interval import Interval
from lodestar.pipeline.estimation.intervals.same_requests import same_requests_interval
from lodestar.pipeline.estimation.least_squares import Linear
from lodestar.pipeline.replay.parallel import mapper
from lodestar.pipeline.validation.coverage import (
    Coverage,
    Weighed,
    covered,
    dr_interval,
    dr_rows,
    snipw_interval,
    snipw_rows,
)
from lodestar.pipeline.validation.replayed_logs import (
    TARGETS,
    WORLDS,
    ReplayedLog,
    ReplayedWorld,
    recorded,
    replayed_log,
    simple_model,
)

__all__ = ["replayed_coverage"]

Progress = Callable[[str, int, int], None]

_SAME: Final = "for the same requests"
_TRUTH: Final = 2  # replays that tell the truth, for each that has an interval: of 300, its error is 1/24 of theirs


class _Read(NamedTuple):
    """What one log gives for one target."""

    dr_mean: float
    intervals: dict[str, Interval]
    weighed: Weighed


def replayed_coverage(
    repetitions: int = 300,
    seed: int = 0,
    progress: Progress | None = None,
    worlds: Sequence[ReplayedWorld] = WORLDS,
    block: int | None = None,
) -> list[Coverage]:
    """Measure the coverage of snipw and dr intervals by blocks on replayed logs, with those by single decisions beside.

    Where all logs have the same requests, with those for the same requests too.

    Each repetition is one replay under `random` with its own arrivals, routing and noise; `TARGETS` are valued from its
    log. The truth is the mean doubly robust value of twice as many other replays, which is right whatever the model, as
    the propensities are. The model is fitted to one more replay.

    Args:
        repetitions: logs of each world that have intervals.
        seed: of all replays.
        progress: told what is done, how much of it, and of how much.
        worlds: what is replayed.
        block: consecutive decisions that count as one; None: `block_of`.
    """
    rows: list[Coverage] = []
    total = len(worlds) * (1 + _TRUTH) * repetitions
    with mapper() as cores:
        for k, world in enumerate(worlds):
            first = 10_000_000 * seed
            model = simple_model(recorded(world, first))
            read: list[dict[str, _Read]] = []
            seeds = range(first + 1, first + 1 + (1 + _TRUTH) * repetitions)
            for one in cores.map(partial(_read, world, model, block), seeds):
                read.append(one)
                if progress:
                    progress("replayed coverage", k * len(seeds) + len(read), total)
            rows += [
                row for target in TARGETS for row in _rows(world, target, [one[target] for one in read], repetitions)
            ]
    return rows


def _read(world: ReplayedWorld, model: Linear, block: int | None, seed: int) -> dict[str, _Read]:
    log = recorded(world, seed)
    return {target: _intervals(replayed_log(log, target, model), block, world.same_requests) for target in TARGETS}


def _intervals(log: ReplayedLog, block: int | None, same_requests: bool) -> _Read:
    found = {}
    if same_requests:
        rows = dr_rows(log.cost, log.weight, log.direct, log.predicted)
        found[f"snipw {_SAME}"] = same_requests_interval(*snipw_rows(log.cost, log.weight), log.shared, block)
        found[f"dr {_SAME}"] = same_requests_interval(*rows, log.shared, block)
    for how, length in (("blocks", block), ("single decisions", 1)):
        found[f"snipw by {how}"] = snipw_interval(log.cost, log.weight, length, log.shared)
        found[f"dr by {how}"] = dr_interval(log.cost, log.weight, log.direct, log.predicted, length, log.shared)
    return _Read(found["dr by blocks"].value, found, Weighed.of(log.weight))


def _rows(world: ReplayedWorld, target: str, read: list[_Read], repetitions: int) -> list[Coverage]:
    truth = float(np.mean([one.dr_mean for one in read[repetitions:]]))
    judged = read[:repetitions]
    return [
        covered(
            f"{world.name}: {target}",
            name,
            [one.intervals[name] for one in judged],
            truth,
            [one.weighed for one in judged],
            None if name.endswith(_SAME) else judged[0].intervals["dr by blocks"].estimand,
        )
        for name in judged[0].intervals
    ]
