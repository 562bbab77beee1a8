"""New rows predicted by the models that existed when they were decided, before anything learns from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lodestar.models.latency import QUANTILES, LatencyModel
from lodestar.models.refresh.chain import Chain
from lodestar.models.refresh.recent import Recent, rows_to_keep
from lodestar.models.rivals import constant_rival, linear_rival
from lodestar.models.rows import Rows
from lodestar.models.uncertainty.calibrate import calibrate_on, settled, stated_elsewhere
from lodestar.models.uncertainty.in_flight import InFlight

__all__ = ["predicted_at_decision", "scored"]

Floats = NDArray[np.float64]


def predicted_at_decision(
    before: Sequence[tuple[float, LatencyModel]],
    model: LatencyModel,
    known_from_s: float,
    rows: Rows,
    in_flight: InFlight,
) -> tuple[Floats, Floats, LatencyModel, InFlight]:
    """Predict rows, each from what was known at its decision.

    A request that was decided before all that `model` learned from was known, was decided by a model before it; `model`
    is calibrated by it all the same once it finishes.

    Args:
        before: models before it, each with when it was known, oldest first.
        model: newest.
        known_from_s: when all that it learned from was known.
        rows: new ones, in order of arrival.
        in_flight: rows before them that the calibration has not learned.

    Returns:
        the mean of each row (n,), its quantiles (n, 3), in ms; the model, calibrated by what had finished at the last
        arrival, and the rows in flight then.
    """
    early, last_s = rows.arrived_at_s < known_from_s, float(rows.arrived_at_s[-1])
    mean_ms, quantiles_ms = np.empty(len(rows)), np.empty((len(rows), len(QUANTILES)))
    if early.any():
        mean_ms[early], quantiles_ms[early] = _by_models_before(before, rows.only(early))
        in_flight = in_flight.then(stated_elsewhere(rows.only(early)))
    if early.all():
        return mean_ms, quantiles_ms, *settled(model, in_flight, last_s)
    mean_ms[~early] = model.predict(rows.features[~early])
    quantiles_ms[~early], model, in_flight = calibrate_on(model, rows.only(~early), in_flight, last_s)
    return mean_ms, quantiles_ms, model, in_flight


def _by_models_before(before: Sequence[tuple[float, LatencyModel]], rows: Rows) -> tuple[Floats, Floats]:
    mean_ms, quantiles_ms = np.empty(len(rows)), np.empty((len(rows), len(QUANTILES)))
    of = np.searchsorted([from_s for from_s, _ in before[1:]], rows.arrived_at_s, side="right")
    for k in np.unique(of):
        features = rows.features[of == k]
        mean_ms[of == k] = before[k][1].predict(features)
        quantiles_ms[of == k] = before[k][1].predict_quantiles(features)
    return mean_ms, quantiles_ms


def scored(chain: Chain, rows: Rows) -> Chain:
    """Predict new rows, put them among the recent ones, and let the calibration of the newest model follow."""
    model = chain.trained.model
    mean_ms, quantiles_ms, model, in_flight = predicted_at_decision(
        chain.before, model, chain.known_from_s, rows, chain.in_flight
    )
    known = chain.recent.rows
    n = len(rows)
    said = Recent(
        rows,
        mean_ms,
        constant_rival(known, rows.features),
        linear_rival(known, rows.features),
        quantiles_ms,
        np.full(n, not chain.is_champion),
        np.zeros(n, dtype=np.bool_),
    )
    most = rows_to_keep(chain.trained.record["parameters"])
    return replace(
        chain,
        trained=replace(chain.trained, model=model),
        recent=chain.recent.then(said, most),
        batches=chain.batches + 1,
        in_flight=in_flight,
    )
