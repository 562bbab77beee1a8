"""The queueing world's log before the replay: engines calibrated from it, every policy replayed, flags and all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from lodestar.data.log import RequestLog
from lodestar.data.reconstruction.reconstruct import workload_of
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.calibration.calibrate import LIMITS_FROM, calibrate
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.flags import stability_of
from lodestar.pipeline.replay.parallel import SERIAL, Mapper, Run, replay_one
from lodestar.pipeline.replay.routing.contract import Policy
from lodestar.pipeline.replay.view import RouterView
from lodestar.pipeline.replay.window import window_of
from lodestar.pipeline.validation.worlds.queueing import World
from lodestar.pipeline.validation.worlds.queueing_log import BLOCK_TOKENS

__all__ = ["Calibrated", "calibrated_cluster", "replayed"]

#: The first fit takes limits and a prior from engines at large; the next ones from the fit before, which by then knows
#: how many requests run at once. Without, a capacity that was read from the log with a wrong batch stays wrong.
_PASSES: Final = 2


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A cluster whose engines were fitted to a log, and what the fit says of itself."""

    cluster: Cluster
    notes: list[str]
    replays: int


def calibrated_cluster(
    world: World, log: RequestLog, seed: int = 0, progress: Callable[[int], None] | None = None
) -> Calibrated:
    """Fit engines to the log alone; of the world only what its operator configured is told.

    That is the block size of the engines' caches, and how many blocks the router's prefix index keeps a server.
    """
    workload, replays = workload_of(log, seed), 0
    near = replace(EngineModel.preset(LIMITS_FROM), block_tokens=BLOCK_TOKENS)
    for _ in range(_PASSES):
        fit = calibrate(log, workload, _after(replays, progress), seed, near)
        near, replays = fit.engine, replays + fit.evaluations
    view = RouterView(
        index_block_tokens=BLOCK_TOKENS,
        index_capacity_blocks=world.cached_groups * (world.prefix_tokens // BLOCK_TOKENS),
        index_per_instance=True,
    )
    return Calibrated(Cluster.of(fit.engines, workload, view, names=log.instances), fit.notes, replays)


def _after(done: int, progress: Callable[[int], None] | None) -> Callable[[int], None] | None:
    """Go on counting after so many replays."""
    return None if progress is None else lambda count: progress(done + count)


def replayed(cluster: Cluster, policy: Policy, seeds: Sequence[int], mapper: Mapper = SERIAL) -> dict[str, Any]:
    """Replay a policy under every seed; return mean and median of the seeds' means, P99 and what the flags say."""
    window = window_of(cluster.workload)
    runs = list(mapper.map(replay_one, [Run(cluster, policy, seed) for seed in seeds]))
    stability = stability_of(runs, cluster.workload, window)
    means_ms = [float(run.ttft_ms[window.rows].mean()) for run in runs]
    return {
        "mean_ms": float(np.mean(means_ms)),
        "median_ms": float(np.median(means_ms)),
        "p99_ms": float(np.mean([np.quantile(run.ttft_ms[window.rows], 0.99) for run in runs])),
        "spread_over_seeds": stability["spread_over_seeds"],
        "unstable": bool(stability["unstable"]),
        "path_dependent": bool(stability["path_dependent"]),
    }
