"""One search of one dataset: its rows, its study and its limits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import optuna

from lodestar.data.workspace import Workspace
from lodestar.models.candidate import TRAINING_SHARE
from lodestar.models.dataset import TrainingData, load_training_data
from lodestar.models.evaluation.decisions import load_decisions
from lodestar.models.fit import require_rows
from lodestar.models.objectives import usable_objectives
from lodestar.models.rows import Rows
from lodestar.models.tuning.folds import folds
from lodestar.models.tuning.groups import groups_in
from lodestar.models.tuning.journal import open_study
from lodestar.models.tuning.locks import sole
from lodestar.models.tuning.losses import ERRORS, Metric
from lodestar.models.tuning.regret import REGRET, regret_of
from lodestar.models.tuning.search import Search
from lodestar.models.tuning.space import Space
from lodestar.models.tuning.speed import Speed

__all__ = ["METRICS", "Task", "prepared", "store_lock"]

METRICS: Final = (*ERRORS, REGRET)
MOST_ROWS: Final = 100_000  # of the newest: a trial fits six models, and more rows no longer change which is better
_HELD_OUT: Final = f"holding out the newest {1 - TRAINING_SHARE:.0%} and those unfinished at the cut"
_SPEED: Final = "speed"


@dataclass(frozen=True, slots=True)
class Task:
    """A search and what it is about.

    Attributes:
        workspace: that keeps study, runs and models.
        data: the dataset.
        metric: loss.
        rows: that take part.
        newest: that do not.
        study: the trials.
        search: what they have in common.
    """

    workspace: Workspace
    data: TrainingData
    metric: Metric
    rows: Rows
    newest: Rows
    study: optuna.Study
    search: Search


def prepared(
    workspace: Workspace, dataset: str, target: str, metric_name: str, seed: int, max_decision_us: float
) -> Task:
    """Read the data, cut it, and open the study that belongs to exactly this search."""
    with store_lock(workspace):
        data = load_training_data(workspace, dataset, (target,))
        rows, newest = _searchable(data.rows[target], target)
        metric = _metric(workspace, dataset, metric_name, rows)
    parts = folds(rows, metric)
    require_rows(parts[0].earlier, target, f"{_HELD_OUT}, before the first measurement of the search")
    space = Space(tuple(usable_objectives(data.rows[target])), groups_in(rows.features))
    same = "/".join((data.fingerprint, space.description(), f"{max_decision_us:g}", f"{MOST_ROWS}"))
    digest = hashlib.sha256(same.encode()).hexdigest()[:12]
    study = open_study(workspace.studies, f"{dataset}-{target}-{metric_name}-seed{seed}-{digest}")
    claims = _claims(workspace)
    with sole(claims / f"{study.study_name}.lock"):
        speed = _speed(study, rows, target, seed)
    its = Search(target, space, parts, metric.heads, seed, speed, max_decision_us, claims)
    return Task(workspace, data, metric, rows, newest, study, its)


@contextmanager
def store_lock(workspace: Workspace) -> Iterator[None]:
    """Read the store one search at a time: it lets no two processes in, and the second would fail."""
    with sole(_claims(workspace) / "store.lock"):
        yield


def _claims(workspace: Workspace) -> Path:
    return workspace.studies.with_name("studies.claims")


def _metric(workspace: Workspace, dataset: str, name: str, rows: Rows) -> Metric:
    return regret_of(load_decisions(workspace, dataset), rows, dataset) if name == REGRET else ERRORS[name]


def _searchable(rows: Rows, target: str) -> tuple[Rows, Rows]:
    """Return the rows that take part, and the newest, which do not."""
    training, newest = rows.split_share(TRAINING_SHARE)
    require_rows(training, target, _HELD_OUT)
    return training.last(MOST_ROWS), newest


def _speed(study: optuna.Study, rows: Rows, target: str, seed: int) -> Speed:
    """Measure the machine once a study: every trial is held against the same numbers."""
    if _SPEED not in study.user_attrs:
        study.set_user_attr(_SPEED, asdict(Speed.measure(rows, target, seed)))
    return Speed(**study.user_attrs[_SPEED])
