"""How wrong predictions of a batch were, in the three ways that matter to a router."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from lodestar.models.latency import QUANTILES
from lodestar.models.metrics import coverage, mae_ms, pinball_ms
from lodestar.models.rows import Rows

__all__ = ["Losses", "absolute_error_ms", "losses_of"]

Floats = NDArray[np.float64]

_P90 = list(QUANTILES).index("p90")


@dataclass(frozen=True, slots=True)
class Losses:
    """Means over a batch; None where no latency of it is known.

    Attributes:
        rows: that were measured; 0 where all were cut off.
        mae_ms: absolute error of the mean.
        log_loss: absolute error of its logarithm: 0.1 is a tenth too high or too low.
        pinball_ms: quantile loss of the P90; None too where a P90 was stated without bound.
        coverage: share of the latencies at or below the P90.
    """

    rows: int
    mae_ms: float | None
    log_loss: float | None
    pinball_ms: float | None
    coverage: float | None

    def to_dict(self) -> dict[str, float | None]:
        """Return it ready for JSON."""
        return asdict(self)


def losses_of(rows: Rows, predicted_ms: Floats, quantiles_ms: Floats) -> Losses:
    """Measure the rows whose latency is known.

    Args:
        rows: measured.
        predicted_ms: of each row, (n,).
        quantiles_ms: P50, P90 and P99 of each row, (n, 3).

    >>> features, ones = np.zeros((2, 0)), np.ones(2)
    >>> rows = Rows(np.arange(2), features, np.array([100.0, 200.0]), ones < 0, ones, ones, ones, 2, {})
    >>> losses = losses_of(rows, np.array([110.0, 200.0]), np.array([[90.0, 150.0, 300.0], [150.0, 190.0, 300.0]]))
    >>> losses.mae_ms, round(losses.log_loss, 3), losses.coverage, losses.pinball_ms
    (5.0, 0.048, 0.5, 7.0)
    """
    known = ~rows.censored
    if not known.any():
        return Losses(0, None, None, None, None)
    measured_ms, predicted, stated_ms = rows.latency_ms[known], predicted_ms[known], quantiles_ms[known, _P90]
    loss_ms = pinball_ms(measured_ms, stated_ms, QUANTILES["p90"])
    return Losses(
        int(known.sum()),
        mae_ms(measured_ms, predicted),
        float(np.abs(np.log(predicted / measured_ms)).mean()),
        loss_ms if np.isfinite(loss_ms) else None,
        coverage(measured_ms, stated_ms),
    )


def absolute_error_ms(rows: Rows, predicted_ms: Floats) -> Floats:
    """Return the error of each row (n,); of a censored one, whose latency is at least the bound, what is known."""
    error = predicted_ms - rows.latency_ms
    return np.where(rows.censored & (error > 0), 0.0, np.abs(error))
