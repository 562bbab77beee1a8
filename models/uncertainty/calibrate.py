"""Learning how far a model's quantiles are off, from rows that it has not seen, as they finish."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.models.latency import QUANTILES, LatencyModel
from lodestar.models.rows import Rows
from lodestar.models.slices import load_slice
from lodestar.models.uncertainty.in_flight import InFlight

__all__ = ["calibrate", "calibrate_on", "settled", "stated_elsewhere"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_LARGEST_LOG_MS: Final = float(np.log(np.finfo(np.float64).max))


def calibrate(model: LatencyModel, rows: Rows) -> tuple[Floats, LatencyModel]:
    """Return the quantiles (ms) that the model states for each row at its decision, (n, 3), and the model afterwards.

    This is prequential: a row's quantiles are corrected by the rows that had finished when it arrived. `rows` must be
    new to the model's heads, and in order of arrival. Afterwards is when all have finished: no later row may be stated
    by that model before then; see `calibrate_on`.
    """
    stated_ms, after, _ = calibrate_on(model, rows, InFlight.none(rows.features.shape[1]), np.inf)
    return stated_ms, after


def calibrate_on(
    model: LatencyModel, rows: Rows, in_flight: InFlight, until_s: float
) -> tuple[Floats, LatencyModel, InFlight]:
    """Do as `calibrate` for rows that come in batches, whose ends do not change what is stated.

    Args:
        model: as it was after the batch before.
        rows: of the batch.
        in_flight: rows before, that had not been learned; they may have been stated by other heads.
        until_s: what finishes later is not learned: the last arrival.

    Returns:
        what the model states of the batch (ms), (n, 3), infinite where it states no bound; the model then, and the rows
        that it has not learned.
    """
    every, first = in_flight.then(stated_elsewhere(rows)), len(in_flight)
    after, followed, learned = _followed(model, every, first, until_s)
    stated = (followed.raw_log_ms + followed.offsets)[first:]
    return _in_ms(np.maximum.accumulate(stated, axis=1)), after, followed.only(~learned)


def _in_ms(log_ms: Floats) -> Floats:
    """Return milliseconds; infinite, which is no bound at all, where they are more than a float holds.

    Offsets grow without limit for as long as measured rows miss them; those of a stream that bounds hide do not.
    Coverage counts such a row as covered, and `losses` has no loss of it.

    >>> _in_ms(np.array([0.0, 2894.3])).tolist()
    [1.0, inf]
    """
    return np.exp(np.where(log_ms > _LARGEST_LOG_MS, np.inf, log_ms))


def settled(model: LatencyModel, in_flight: InFlight, until_s: float) -> tuple[LatencyModel, InFlight]:
    """Return the model when it has learned what of these finishes until then, and what is left."""
    if not len(in_flight):
        return model, in_flight
    after, followed, learned = _followed(model, in_flight, len(in_flight), until_s)
    return after, followed.only(~learned)


def stated_elsewhere(rows: Rows) -> InFlight:
    """Return rows that a model without feedback stated, for another to learn from once they finish."""
    unknown = np.full((len(rows), len(QUANTILES)), np.nan)
    return InFlight(
        rows.features,
        np.log(rows.latency_ms),
        rows.censored,
        rows.arrived_at_s,
        rows.finished_at_s,
        unknown,
        unknown,
        unknown,
    )


def _followed(model: LatencyModel, every: InFlight, first: int, until_s: float) -> tuple[LatencyModel, InFlight, Bools]:
    """Follow all rows, of which so many were stated before: the model then, the rows as stated, and which it learned.

    Where the heads have changed since a row was stated, its offset is counted from the new ones: what it was stated,
    and whether that was missed, stays as it was.
    """
    raw = model.raw_log_quantiles(every.features)
    offsets, aims, learned, after = model.conformal.follow_on(
        load_slice(every.features),
        every.log_ms[:, None] - raw,
        every.arrived_at_s,
        every.finished_at_s,
        (every.offsets + (every.raw_log_ms - raw))[:first],
        every.aims[:first],
        until_s,
        every.censored,
    )
    return replace(model, conformal=after), replace(every, raw_log_ms=raw, offsets=offsets, aims=aims), learned
