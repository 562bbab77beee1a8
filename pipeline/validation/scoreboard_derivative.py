"""D_H of several logs of the queueing world beside the derivative that the world has."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.estimation.beyond.derivative import derivative
from lodestar.pipeline.replay.parallel import SERIAL, Mapper
from lodestar.pipeline.validation.worlds.queueing import LOGGING, World, traffic_of
from lodestar.pipeline.validation.worlds.queueing_kernel import POLICIES
from lodestar.pipeline.validation.worlds.queueing_truth import derivative_slopes, warm

__all__ = ["derivatives"]

Floats = NDArray[np.float64]

#: Runs of each log's traffic that the truth is measured by.
_SEEDS_A_LOG: Final = 5
_WITHIN: Final = 2.0


def derivatives(
    world: World, requests: int, seed: int = 0, logs: int = 10, mapper: Mapper = SERIAL
) -> dict[str, dict[str, Any]]:
    """Return D_H towards every policy but the logging one, the truth, and how far apart they are.

    One log leaves D_H so unsure that it says little of whether D_H is right on average; the mean over several logs,
    each of traffic of its own, is the sharper question, and asked with the horizon that the product chooses by itself.
    Logs of 20,000 requests allow horizons of 400, at which D_H is still a fifth short in this world; 100,000 do.

    Args:
        world: that is logged and run.
        requests: of each log.
        seed: of the first log.
        logs: how many, at least 2.
        mapper: what runs them.
    """
    found = list(mapper.map(lambda number: _of_log(world, requests, seed + number), range(logs)))
    return {policy: _row(np.array([of_log[policy] for of_log in found])) for policy in POLICIES if policy != LOGGING}


def _of_log(world: World, requests: int, seed: int) -> dict[str, tuple[float, float, float, float]]:
    """Return of every policy D_H, its standard error, its horizon, and the truth by runs of the same traffic."""
    traffic, counted = traffic_of(world, requests, seed), warm(requests)
    run = world.run(traffic, seed=seed, keep=True)
    chosen = np.arange(requests), run.chosen
    found = {}
    for policy in POLICIES:
        if policy != LOGGING:
            w = world.probabilities(traffic, run, policy)[chosen] / run.probability[chosen]
            path = derivative(run.ttft_ms[counted], w[counted])
            judging = range(seed + 1, seed + 1 + _SEEDS_A_LOG)
            slope = float(derivative_slopes(world, traffic, policy, judging).mean())
            found[policy] = (path.value, path.se, float(path.horizon), slope)
    return found


def _row(of_logs: Floats) -> dict[str, Any]:
    """Put the logs of a policy together; `of_logs` has the columns of `_of_log`."""
    value, se, horizon, slope = of_logs.T
    logs = len(value)
    truth, truth_se = float(slope.mean()), float(slope.std(ddof=1) / np.sqrt(logs))
    mean_se = float(np.sqrt(np.sum(se**2)) / logs)
    z_of_logs = (value - truth) / np.hypot(se, truth_se)
    return {
        "truth_ms": truth,
        "truth_se_ms": truth_se,
        "value_ms": float(value.mean()),
        "se_ms": mean_se,
        "z": (float(value.mean()) - truth) / float(np.hypot(mean_se, truth_se)),
        "logs": logs,
        "logs_within_two_se": int((np.abs(z_of_logs) <= _WITHIN).sum()),
        "horizon_requests": float(np.median(horizon)),
        "first_log_ms": float(value[0]),
        "first_log_se_ms": float(se[0]),
    }
