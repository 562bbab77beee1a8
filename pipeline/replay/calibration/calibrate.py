"""Fit the engine model to a dataset's own latencies, by replaying the decisions that its log holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.data.log import RequestLog, Workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.calibration.bootstrap import Draws, bootstrap
from lodestar.pipeline.replay.calibration.caching import find_caching
from lodestar.pipeline.replay.calibration.calibration import Calibration
from lodestar.pipeline.replay.calibration.capacity import Capacity, capacity_of, fewest_tokens, first_guess, knows_usage
from lodestar.pipeline.replay.calibration.coefficients import coefficients_of
from lodestar.pipeline.replay.calibration.evidence import identified, intervals, limit_notes
from lodestar.pipeline.replay.calibration.fleet import Fleet
from lodestar.pipeline.replay.calibration.forced import Forced
from lodestar.pipeline.replay.calibration.limits import Limited, find_limits, likely_fleets
from lodestar.pipeline.replay.calibration.noise import noise_ratio
from lodestar.pipeline.replay.calibration.per_instance import Slowness, slowness
from lodestar.pipeline.replay.calibration.search import Fit, refine, search
from lodestar.pipeline.replay.calibration.speeds import slow_notes, speeds
from lodestar.pipeline.replay.calibration.stretch import Stretch, stretch_of, training_part

__all__ = ["FEWEST_REQUESTS", "LIMITS_FROM", "calibrate", "can_calibrate", "usable_requests"]

Floats = NDArray[np.float64]

#: Gives what no latency tells: the limits of a batch and of the cache where they are neither logged nor met.
LIMITS_FROM: Final = "l40s-llama-3.1-8b"
FEWEST_REQUESTS: Final = 50
_ROUNDS: Final = 5
_STEPS: Final = 3


def can_calibrate(log: RequestLog) -> bool:
    """Say whether the training part of the log has latencies of known instances to fit an engine to."""
    return usable_requests(log) >= FEWEST_REQUESTS


def usable_requests(log: RequestLog) -> int:
    """Count the requests of the training part with a TTFT and a known instance: the decision's, or the only one."""
    known = (log.chosen >= 0) | (len(log.instances) == 1)
    return int(np.sum(training_part(log) & known & (log.ttft_ms > 0)))


def calibrate(
    log: RequestLog,
    workload: Workload,
    progress: Callable[[int], None] | None = None,
    seed: int = 0,
    near: EngineModel | None = None,
) -> Calibration:
    """Fit the engines so that replaying the logged choices gives the logged latencies.

    The loss, on the first `TRAINING_SHARE` of the requests, is the mean absolute difference between the logs of
    replayed and logged TTFT and TPOT (and prefill time where the engine tells it), request by request, plus that of the
    means of bands of their distributions. Coefficients, weakly held by a prior, are searched for first; then limits of
    the batch and the cache, prefix caching, and the speed of each instance, as far as the log tells them.

    The rows of `log` and `workload` must be the same requests in the same order. A log that names no instance is taken
    as that of one. `progress` is told the replays so far; `seed` is that of the restarts and the bootstraps. The prior
    is centered on `near` where that is given: an engine from a profile or from statistics, say.
    """
    stretch, base = stretch_of(log, workload), near or EngineModel.preset(LIMITS_FROM)
    fewest = fewest_tokens(workload, base.block_tokens)
    base = replace(base, kv_capacity_tokens=first_guess(log, base, fewest))
    center = None if near is None else coefficients_of(near)
    forced = Forced(log, workload, stretch, base, progress)
    if len(forced.row) == 0:
        raise DataError(f"dataset {log.dataset!r}: no latency with a known instance to fit to. See lodestar inspect")
    found = _fit(log, stretch, forced, fewest, seed, center)
    draws = bootstrap(forced, found.fleet, found.fit, found.capacity, seed=seed)
    noise, noise_note = noise_ratio(log, stretch, forced, found.fleet.at(found.fit.at))
    fleet = found.fleet.limited(noise_ratio=noise)
    known = identified(draws, found.capacity, found.told)
    return Calibration(
        engine=_typical(fleet, found.fit),
        loss=forced.loss(found.fit.replayed, forced.weights()),
        identified=known,
        notes=[
            *_log_notes(log, stretch),
            *limit_notes(fleet, found.capacity, known),
            found.caching,
            *slow_notes(found.slow, _names(log)),
            noise_note,
        ],
        evaluations=forced.evaluations,
        engines=fleet.at(found.fit.at),
        draws=_drawn(fleet, draws, found.slow, fewest),
        intervals=intervals(found.fit, fleet, draws),
        speeds=speeds(found.slow, _names(log)),
        speeds_p_value=found.slow.test.p_value if found.slow else None,
    )


@dataclass(frozen=True, slots=True)
class _Found:
    fleet: Fleet
    fit: Fit
    capacity: Capacity
    told: dict[str, bool]
    caching: str
    slow: Slowness | None


def _fit(log: RequestLog, stretch: Stretch, forced: Forced, fewest: int, seed: int, center: Floats | None) -> _Found:
    """Search for coefficients, capacities, limits, caching and speeds, each with what is known by then."""
    fleet = Fleet(tuple(forced.cluster.engines), np.zeros(len(forced.cluster.engines)))
    starts = [fleet, *([] if knows_usage(log, stretch) else likely_fleets(forced, fleet, fewest))]
    found = [_limited(log, stretch, forced, start, fewest, seed, center) for start in starts]
    limited, capacity = min(found, key=lambda pair: pair[0].fit.objective)
    caching = find_caching(forced, limited.fleet, limited.fit, _names(log))
    fleet, slow = _with_speeds(forced, caching.fleet, caching.fit, seed)
    return _Found(fleet, refine(forced, fleet, caching.fit), capacity, limited.told, caching.note, slow)


def _limited(
    log: RequestLog, stretch: Stretch, forced: Forced, fleet: Fleet, fewest: int, seed: int, center: Floats | None
) -> tuple[Limited, Capacity]:
    """Search for coefficients, and for the limits of the batch and the cache."""
    fit = search(forced, fleet, center, seed)
    for _ in range(_ROUNDS):
        # A slow instance holds more at a time, and a full cache holds back requests: one changes what the other tells.
        before, (fleet, _) = fleet, _with_speeds(forced, fleet, fit, seed)
        capacity = capacity_of(log, stretch, forced, fleet, fit.at, fewest, seed)
        fleet = capacity.of(fleet)
        fit = refine(forced, fleet, fit, _STEPS)
        if fleet.is_near(before):
            break
    return find_limits(forced, fleet, fit, capacity), capacity


def _with_speeds(forced: Forced, fleet: Fleet, fit: Fit, seed: int) -> tuple[Fleet, Slowness | None]:
    """Return the fleet with the speed of each instance as far as it is told."""
    if len(fleet.limits) < 2:
        return fleet, None
    slow = slowness(forced, fleet, fit.at, seed)
    return replace(fleet, slowness=slow.test.shrunk), slow


def _names(log: RequestLog) -> list[str]:
    return log.instances or ["all requests"]


def _typical(fleet: Fleet, fit: Fit) -> EngineModel:
    """Return the engine of most instances, with the typical capacity."""
    kinds = [engine.prefix_caching for engine in fleet.limits]
    most = kinds.index(max(kinds, key=kinds.count))
    alike = replace(fleet, slowness=np.zeros(len(kinds)))
    return replace(alike.at(fit.at)[most], kv_capacity_tokens=int(fleet.typical("kv_capacity_tokens")))


def _drawn(fleet: Fleet, draws: Draws, slow: Slowness | None, fewest: int) -> list[list[EngineModel]]:
    """Return the engines of every draw."""
    slowness_of = slow.draws if slow else np.zeros((len(draws.at), len(fleet.limits)))
    return [
        replace(fleet.resized(size, fewest), slowness=each).at(at)
        for at, size, each in zip(draws.at, draws.capacity.tolist(), slowness_of, strict=False)
    ]


def _log_notes(log: RequestLog, stretch: Stretch) -> list[str]:
    undecided = int((log.chosen < 0).sum())
    notes = [stretch.note] if stretch.note else []
    if not log.instances:
        notes.append("the log names no instance: taken as one that served all")
    elif undecided:
        notes.append(f"{undecided} requests without a logged decision were sent to the instances in turn")
    return notes
