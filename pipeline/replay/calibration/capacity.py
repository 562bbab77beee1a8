"""How many tokens of key-value cache an engine holds, where the log shows how full it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema as s
from lodestar.data.log import RequestLog, Workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.calibration.blocks import BLOCKS, block_draws
from lodestar.pipeline.replay.calibration.fleet import Fleet
from lodestar.pipeline.replay.calibration.forced import Forced
from lodestar.pipeline.replay.calibration.heterogeneity import Heterogeneity, heterogeneity
from lodestar.pipeline.replay.calibration.stretch import Stretch, training_part

__all__ = ["Capacity", "capacity_of", "fewest_tokens", "first_guess", "knows_usage"]

Floats = NDArray[np.float64]

_FEWEST: Final = 50
_RUNNING: Final = 3  # fewer say little of the mean request
_DRAWS: Final = 200
#: What waits before a full cache is not in it: there the replay, with another size, holds other requests.
_FULL: Final = 0.9
_USAGE: Final = s.SNAPSHOT_FIELDS.index(s.KV_USAGE_RATIO)
#: Spread of the log of a capacity that is not logged, and the least that is left of it where it is.
_OPEN: Final = 0.15
_CLOSED: Final = 0.02


@dataclass(frozen=True, slots=True)
class Capacity:
    """Tokens that fit.

    Attributes:
        tokens: on the typical instance.
        error: standard deviation of its log.
        logged: whether the log's own usage tells it.
        test: whether instances differ, in logs; None where usage is not logged.
        fewest: tokens that every engine must hold for every request of the log to fit.
    """

    tokens: int
    error: float
    logged: bool
    test: Heterogeneity | None
    fewest: int

    def of(self, fleet: Fleet) -> Fleet:
        """Return the fleet with these capacities."""
        off = self.test.shrunk if self.test else np.zeros(len(fleet.limits))
        sizes = [max(self.fewest, round(self.tokens * float(np.exp(each)))) for each in off]
        return fleet.each("kv_capacity_tokens", sizes)


def fewest_tokens(workload: Workload, block_tokens: int) -> int:
    """Return what an engine must hold for the largest request to fit, rounded up to whole blocks."""
    largest = int((workload.prompt_tokens + workload.output_tokens).max())
    return largest + 2 * block_tokens + workload.block_tokens


def first_guess(log: RequestLog, otherwise: EngineModel, fewest: int) -> int:
    """Return running requests × their mean tokens / usage, of the training part; enough to start a search from."""
    part = training_part(log)
    running, usage = log.snapshot[s.RUNNING_REQUESTS][part], log.snapshot[s.KV_USAGE_RATIO][part]
    seen = (running >= _RUNNING) & (usage > 0)
    if seen.sum() < _FEWEST:
        return max(fewest, otherwise.kv_capacity_tokens)
    # A request holds its prompt and, on average over its life, half of its output.
    held = log.prompt_tokens[part].mean() + log.output_tokens[part].clip(0).mean() / 2
    return max(fewest, int(running[seen].sum() * held / usage[seen].sum()))


def knows_usage(log: RequestLog, stretch: Stretch) -> bool:
    """Say whether the log shows how full the caches were."""
    return bool((log.snapshot[s.KV_USAGE_RATIO][stretch.counted : stretch.end] > 0).sum() >= _FEWEST)


def capacity_of(
    log: RequestLog, stretch: Stretch, forced: Forced, fleet: Fleet, at: Floats, fewest: int, seed: int = 0
) -> Capacity:
    """Infer the capacity: tokens that the replay holds at each decision / the usage that the log shows there.

    The replay knows which requests run on which instance and what prefixes they share; both sides are summed, so that
    errors of when they run cancel.
    """
    usage = log.snapshot[s.KV_USAGE_RATIO][stretch.counted : stretch.end]
    now = np.array([engine.kv_capacity_tokens for engine in fleet.limits])
    if not knows_usage(log, stretch):
        return Capacity(int(np.median(now)), _OPEN, False, None, fewest)
    snapshots = forced.outcome(fleet.at(at), record=True).snapshots[stretch.counted - stretch.first :]
    seen = (usage > 0) & (usage < _FULL)
    seen = seen if seen.sum() >= _FEWEST else usage > 0
    held, full = np.where(seen, snapshots[:, :, _USAGE] * now, 0.0), np.where(seen, usage, 0.0)
    drawn = block_draws(len(usage), _DRAWS, seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        of_each = np.log(held.sum(axis=0) / full.sum(axis=0))
        errors = np.log((drawn @ held) / (drawn @ full)).std(axis=0)
        pooled = np.log((drawn @ held).sum(axis=1) / (drawn @ full).sum(axis=1))
    known = (seen.sum(axis=0) >= _FEWEST) & np.isfinite(of_each)
    test = heterogeneity(np.where(known, of_each, np.nan), np.where(known, errors, np.nan), BLOCKS)
    typical = np.exp(test.typical) if test.differ else held.sum() / full.sum()
    return Capacity(max(fewest, round(float(typical))), max(_CLOSED, float(pooled.std())), True, test, fewest)
