"""One refit: a twin without the newest rows is measured on these, then the same recipe learns from all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lodestar.models.latency import LatencyModel
from lodestar.models.parameters import Parameters
from lodestar.models.refresh.choice import Choice, choose, tried
from lodestar.models.refresh.due import parted
from lodestar.models.refresh.strategies import WINDOW, refreshed
from lodestar.models.rows import Rows

__all__ = ["Learned", "learned"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Learned:
    """What came of a refit.

    Attributes:
        strategy: that was used.
        choice: what was measured, if several strategies were tried.
        model: that has learned from all rows that waited.
        twin: that has not learned from the newest of them.
        training: rows before the newest that had finished: what the twin could learn from, and what its rivals do.
        newest: the others.
        mean_ms: of the twin for each of the newest, (n,).
        from_rows: what the model learned from in this refit.
        seconds: of processor time, all in all.
    """

    strategy: str
    choice: Choice | None
    model: LatencyModel
    twin: LatencyModel
    training: Rows
    newest: Rows
    mean_ms: Floats
    from_rows: Rows
    seconds: float


def learned(
    strategies: Sequence[str],
    model: LatencyModel,
    window: Rows,
    pending: Rows,
    parameters: Parameters,
    seed: int,
    update: int,
) -> Learned:
    """Try the strategies, go on with the one chosen, and learn from all rows.

    Args:
        strategies: one or more.
        model: as it was, calibrated by the rows that wait.
        window: newest rows, those that wait at their end.
        pending: rows that wait to be learned from.
        parameters: of the fit.
        seed: of the fit.
        update: number of this update.
    """
    started = time.process_time()
    training, newest = parted(pending)
    without = window.only((window.request_index < newest.request_index[0]) & _finished(window, newest))
    trials = [tried(name, model, without, training, newest, parameters, seed) for name in strategies]
    choice = choose(trials, newest, update) if len(trials) > 1 else None
    trial = next(trial for trial in trials if choice is None or trial.strategy == choice.strategy)
    after = refreshed(trial.strategy, model, window, pending, parameters, seed)
    return Learned(
        trial.strategy,
        choice,
        after,
        trial.model,
        without,
        newest,
        trial.model.predict(newest.features),
        window if trial.strategy == WINDOW else pending,
        time.process_time() - started,
    )


def _finished(window: Rows, newest: Rows) -> NDArray[np.bool_]:
    finished: NDArray[np.bool_] = window.finished_at_s <= newest.arrived_at_s[0]
    return finished
