"""What a search makes small: the loss of each row that a model has not seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lodestar.models.latency import QUANTILES, LatencyModel
from lodestar.models.rivals import linear_rival
from lodestar.models.rows import Rows
from lodestar.models.uncertainty.calibrate import calibrate

__all__ = ["ERRORS", "Error", "Losses", "Metric"]

Floats = NDArray[np.float64]

#: Model → the loss of every row.
Losses: TypeAlias = Callable[[LatencyModel], Floats]

_P90: Final = QUANTILES["p90"]


class Metric(Protocol):
    """A loss a row, as a share of what linear regression loses on the mean row of the same stretch.

    Attributes:
        name: after ``--metric``.
        meaning: in words, with its unit.
        heads: whether it needs the quantile heads of a model.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def meaning(self) -> str: ...  # noqa: D102
    @property
    def heads(self) -> bool: ...  # noqa: D102

    def on(self, earlier: Rows, later: Rows) -> Losses:
        """Return what tells the losses of a model, learned from the earlier rows, on the later ones."""
        ...


@dataclass(frozen=True, slots=True)
class Error:
    """A `Metric` of predictions.

    Attributes:
        name: see `Metric`.
        meaning: see `Metric`.
        heads: see `Metric`.
        predict: model and rows that are new to it → what is compared with the latency.
        linear: training rows and features → the same by linear regression.
        loss: measured and predicted ms → loss, elementwise.
    """

    name: str
    meaning: str
    heads: bool
    predict: Callable[[LatencyModel, Rows], Floats]
    linear: Callable[[Rows, Floats], Floats]
    loss: Callable[[Floats, Floats], Floats]

    def on(self, earlier: Rows, later: Rows) -> Losses:
        """See `Metric.on`."""
        reference = float(self._lenient(later, self.linear(earlier, later.features)).mean())
        return lambda model: self._lenient(later, self.predict(model, later)) / reference

    def _lenient(self, rows: Rows, predicted_ms: Floats) -> Floats:
        """A latency that is only known to be longer than a bound can't blame a prediction beyond it."""
        return np.where(rows.censored & (predicted_ms > rows.latency_ms), 0.0, self.loss(rows.latency_ms, predicted_ms))


def _mean(model: LatencyModel, rows: Rows) -> Floats:
    return model.predict(rows.features)


def _p90(model: LatencyModel, rows: Rows) -> Floats:
    """Return the P90 as it would have been stated at each decision."""
    stated: Floats = calibrate(model, rows)[0][:, list(QUANTILES).index("p90")]
    return stated


def _linear_p90(earlier: Rows, features: Floats) -> Floats:
    """Linear regression, raised by the P90 of its own residuals."""
    residual_ms = earlier.latency_ms - linear_rival(earlier, earlier.features)
    raised: Floats = linear_rival(earlier, features) + np.quantile(residual_ms, _P90)
    return np.maximum(raised, float(earlier.latency_ms.min()))


def _absolute(measured_ms: Floats, predicted_ms: Floats) -> Floats:
    return np.abs(measured_ms - predicted_ms)


def _squared_log(measured_ms: Floats, predicted_ms: Floats) -> Floats:
    return np.square(np.log(measured_ms / predicted_ms))


def _pinball(measured_ms: Floats, predicted_ms: Floats) -> Floats:
    over_ms = measured_ms - predicted_ms
    return np.maximum(_P90 * over_ms, (_P90 - 1.0) * over_ms)


#: Name → a loss of predictions.
ERRORS: Final = {
    error.name: error
    for error in (
        Error("mae", "mean absolute error in % of linear regression's", False, _mean, linear_rival, _absolute),
        Error(
            "log",
            "mean square error of the logarithm in % of linear regression's",
            False,
            _mean,
            linear_rival,
            _squared_log,
        ),
        Error("pinball", "quantile loss of the P90 in % of linear regression's", True, _p90, _linear_p90, _pinball),
    )
}
