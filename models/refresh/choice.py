"""Which strategy to go on with: the cheapest of those that are as good as the best, by measurement."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from lodestar.models.latency import LatencyModel
from lodestar.models.parameters import Parameters
from lodestar.models.refresh.losses import absolute_error_ms
from lodestar.models.refresh.strategies import refreshed
from lodestar.models.rows import Rows
from lodestar.models.uncertainty.paired import paired_interval

__all__ = ["AS_GOOD", "REMEASURE_AFTER", "Choice", "Trial", "choose", "tried"]

REMEASURE_AFTER: Final = 8  # updates that go by a choice before it is measured again
AS_GOOD: Final = 1.01  # times the least error
LEAST_S: Final = 1.0  # below this nobody feels what a refit costs, and the better one is taken


@dataclass(frozen=True, slots=True)
class Trial:
    """A strategy on rows that nothing has learned from.

    Attributes:
        strategy: its name.
        model: without those rows.
        seconds: of processor time that learning took.
        mae_ms: on those rows.
    """

    strategy: str
    model: LatencyModel
    seconds: float
    mae_ms: float


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, when, and what it was chosen from.

    Attributes:
        strategy: its name.
        why: in words.
        update: number of the update that measured it.
        measured: strategy → seconds and MAE.
    """

    strategy: str
    why: str
    update: int
    measured: dict[str, dict[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self)

    def holds(self, update: int) -> bool:
        """Say whether it is still recent enough to go by."""
        return update - self.update < REMEASURE_AFTER


def tried(
    strategy: str, model: LatencyModel, window: Rows, training: Rows, newest: Rows, parameters: Parameters, seed: int
) -> Trial:
    """Learn from `training` (and `window`, which ends with it), and measure on `newest`."""
    started = time.process_time()
    after = refreshed(strategy, model, window, training, parameters, seed)
    seconds = time.process_time() - started
    return Trial(strategy, after, seconds, float(absolute_error_ms(newest, after.predict(newest.features)).mean()))


def choose(trials: Sequence[Trial], newest: Rows, update: int) -> Choice:
    """Take the cheapest trial whose error is within 1 % of the least, or not surely larger; of equals the best.

    Sure is what the interval of the paired difference row by row excludes. All that takes less than a second of
    processor time costs the same.
    """
    best = min(trials, key=lambda trial: trial.mae_ms)
    good = [trial for trial in trials if _as_good(trial, best, newest)]
    chosen = min(good, key=lambda trial: (max(trial.seconds, LEAST_S), trial.mae_ms))
    why = (
        f"{chosen.strategy} took {chosen.seconds:.2f} s for a MAE of {chosen.mae_ms:.1f} ms on the newest "
        f"{len(newest)} rows, the best ({best.strategy}) {best.seconds:.2f} s for {best.mae_ms:.1f} ms"
    )
    measured = {trial.strategy: {"seconds": trial.seconds, "mae_ms": trial.mae_ms} for trial in trials}
    return Choice(chosen.strategy, why, update, measured)


def _as_good(trial: Trial, best: Trial, newest: Rows) -> bool:
    if trial.mae_ms <= AS_GOOD * best.mae_ms:
        return True
    theirs = absolute_error_ms(newest, trial.model.predict(newest.features))
    ours = absolute_error_ms(newest, best.model.predict(newest.features))
    return not paired_interval(theirs - ours).excludes_zero
