"""How much prefill varies beyond the model."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema as s
from lodestar.data.log import RequestLog
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.calibration.forced import Forced
from lodestar.pipeline.replay.calibration.stretch import Stretch

__all__ = ["noise_ratio"]

Floats = NDArray[np.float64]

_FEWEST_ALONE: Final = 20
_DEFAULT: Final = 0.05
_INFLIGHT: Final = s.SNAPSHOT_FIELDS.index(s.INFLIGHT_REQUESTS)


def noise_ratio(log: RequestLog, stretch: Stretch, forced: Forced, engines: list[EngineModel]) -> tuple[float, str]:
    """Estimate the spread of the log of a request's prefill work, from requests that found their instance idle.

    Beside others, a request's latency varies with theirs, and with errors of its arrival.
    """
    rows = np.arange(len(forced.choices))
    outcome = forced.outcome(engines, record=True)
    idle = outcome.snapshots[rows, forced.choices, _INFLIGHT] == 0
    inflight, logged_ms = log.snapshot[s.INFLIGHT_REQUESTS], log.ttft_ms[stretch.first : stretch.end]
    if inflight.shape[1]:
        idle &= ~(inflight[stretch.first : stretch.end][rows, forced.choices] > 0)
    alone = idle & (logged_ms > 0) & (outcome.ttft_ms > 0)
    if alone.sum() < _FEWEST_ALONE:
        return _DEFAULT, f"noise of {_DEFAULT:.0%} assumed: {alone.sum()} requests met an idle instance"
    residual = np.log(logged_ms[alone] / outcome.ttft_ms[alone])
    spread = 1.4826 * float(np.median(np.abs(residual - np.median(residual))))
    return spread, f"noise of {spread:.1%} from {alone.sum()} requests that met an idle instance"
