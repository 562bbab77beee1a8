"""The last round: the best trials and the defaults once more, with fresh seeds and fresh cuts, and who wins."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from lodestar.models.parameters import Parameters
from lodestar.models.tuning.folds import Fold, pieces
from lodestar.models.tuning.search import Search, is_default, measured_in_full
from lodestar.models.uncertainty.paired import Interval, paired_interval

__all__ = ["SEEDS", "Finalist", "finalists", "losses_of", "winner"]

Floats = NDArray[np.float64]

BEST: Final = 3
SEEDS: Final = 5
_RUNS: Final = 100  # of neighbouring requests a fold, whose mean loss is kept
_SHARE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Finalist:
    """A trial, measured again.

    Attributes:
        number: of the trial.
        is_default: whether it has the default parameters.
        searched: its value in the search.
        mean: its value with fresh seeds and cuts.
        seed_sd: standard deviation of the value from one seed to the next.
        by_seed: value of each fresh seed.
        less_default: mean loss less that of the defaults on the same seeds and rows, with the ends of an interval that
            holds for all finalists at once; None for the defaults.
        decision_us: estimated time of a decision.
        chosen: its parameters, as searched.
    """

    number: int
    is_default: bool
    searched: float
    mean: float
    seed_sd: float
    by_seed: list[float]
    less_default: dict[str, float] | None
    decision_us: float
    chosen: dict[str, Any]

    @property
    def is_better(self) -> bool:
        """Whether it is better than the defaults beyond doubt."""
        return self.less_default is not None and self.less_default["high"] < 0.0


def finalists(study: optuna.Study, task: Search, fresh: list[Fold]) -> list[Finalist]:
    """Measure the best trials and the defaults with `SEEDS` seeds that no trial has used, the best first.

    What is measured is kept in the study at once, and not measured again after an interruption.
    """
    ranked = measured_in_full(study)
    chosen = [trial for trial in ranked if not is_default(trial)][:BEST]
    defaults = [trial for trial in ranked if is_default(trial)][:1]
    losses = {trial.number: _again(study, task, fresh, trial) for trial in chosen + defaults}
    reference = losses[defaults[0].number] if defaults else None
    share = 1.0 - (1.0 - _SHARE) / max(len(chosen), 1)  # Bonferroni: the best of several is easily good by luck
    described = [_describe(trial, losses[trial.number], reference, share) for trial in chosen + defaults]
    return sorted(described, key=lambda finalist: (finalist.mean, finalist.number))


def winner(found: list[Finalist]) -> tuple[Finalist | None, str]:
    """Return the best finalist that beats the defaults for sure, None for the defaults, and why.

    >>> winner([])
    (None, 'no trial is fast enough and was measured in full')
    """
    rivals = [finalist for finalist in found if not finalist.is_default]
    if not rivals:
        which = "no other trial" if found else "no trial"
        return None, f"{which} is fast enough and was measured in full"
    better = next((finalist for finalist in rivals if finalist.is_better), None)
    told = rivals[0] if better is None else better
    if told.less_default is None:
        return told, "the defaults are too slow for the limit"
    low, high = (100 * told.less_default[end] for end in ("low", "high"))
    numbers = f"trial {told.number} less defaults {low:+.2f} to {high:+.2f} points with fresh seeds"
    return better, numbers if better else f"{numbers}: not surely better, so the defaults are kept"


def losses_of(folds: list[Fold], task: Search, chosen: dict[str, Any], seed: int) -> Floats:
    """Return the losses of one seed by runs of neighbouring requests, in time order."""
    found = []
    for fold in folds:
        parameters: Parameters = task.space.parameters(chosen, len(fold.earlier))
        found.append(pieces(fold.fitted(parameters, task.target, seed, task.heads), _RUNS))
    return np.concatenate(found)


def _again(study: optuna.Study, task: Search, fresh: list[Fold], trial: FrozenTrial) -> Floats:
    """Return the losses with every fresh seed, shape (seeds, runs)."""
    rows = []
    for seed in range(task.seed + 1, task.seed + 1 + SEEDS):
        key = f"again/{trial.number}/{seed}"
        if key not in study.user_attrs:
            study.set_user_attr(key, losses_of(fresh, task, trial.params, seed).tolist())
        rows.append(study.user_attrs[key])
    return np.array(rows)


def _describe(trial: FrozenTrial, losses: Floats, reference: Floats | None, share: float) -> Finalist:
    by_seed = losses.mean(axis=1)
    less: Interval | None = None
    if reference is not None and not is_default(trial):
        less = paired_interval((losses - reference).mean(axis=0), share=share)
    return Finalist(
        number=trial.number,
        is_default=is_default(trial),
        searched=float(trial.value if trial.value is not None else math.nan),
        mean=float(by_seed.mean()),
        seed_sd=float(by_seed.std(ddof=1)),
        by_seed=by_seed.tolist(),
        less_default=asdict(less) if less else None,
        decision_us=trial.user_attrs["decision_us"],
        chosen=dict(trial.params),
    )
