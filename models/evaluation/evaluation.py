"""`evaluate_model`: everything that can be said of a model on a dataset, as one document."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from lodestar.data.errors import ConfigError, DataError, unknown
from lodestar.data.store import dataset_names, open_store
from lodestar.data.workspace import Workspace
from lodestar.models.dataset import TrainingData, load_training_data
from lodestar.models.evaluation.decisions import load_decisions
from lodestar.models.evaluation.shap import ShapPoints
from lodestar.models.evaluation.subject import Subject, find_subject
from lodestar.models.evaluation.target import Material, evaluate_target
from lodestar.models.evaluation.unseen import judged, training_rows
from lodestar.models.latency import TARGETS

__all__ = ["Evaluation", "Settings", "evaluate_model"]

SEEDS: Final = 3


@dataclass(frozen=True, slots=True)
class Settings:
    """What to evaluate, and how.

    Attributes:
        targets: to evaluate; empty for all that the model has.
        against: a second model, to compare on the same rows.
        newest_ratio: keep only rows of this newest share of the requests.
        seeds: fits with other seeds and with shuffled labels; 0 for none.
        seed: of bootstrap, permutation and fits.
    """

    targets: tuple[str, ...] = ()
    against: str | None = None
    newest_ratio: float | None = None
    seeds: int = SEEDS
    seed: int = 0

    def __post_init__(self) -> None:
        if self.newest_ratio is not None and not 0.0 < self.newest_ratio <= 1.0:
            raise ConfigError(f"--newest {self.newest_ratio}: expected a share above 0 and up to 1. Change it")
        for target in self.targets:
            if target not in TARGETS:
                raise unknown("target", target, TARGETS)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was found.

    Attributes:
        model: the word that named it.
        trained_on: its dataset.
        against: the word that named the second model, or None.
        dataset: that it was judged on.
        targets: target → see `evaluate_target`.
        skipped: target → why it was not judged.
        notes: what the log left out and how it was inferred.
        seed: of everything random.
        seconds: wall time.
        shap: target → contributions of features row by row, for figures; not part of the document.
    """

    model: str
    trained_on: str
    against: str | None
    dataset: str
    targets: dict[str, dict[str, Any]]
    skipped: dict[str, str]
    notes: dict[str, str]
    seed: int
    seconds: float
    shap: dict[str, ShapPoints] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            name: getattr(self, name)
            for name in ("model", "trained_on", "against", "dataset", "targets", "skipped", "notes", "seed", "seconds")
        }


def evaluate_model(
    workspace: Workspace,
    model: str,
    dataset: str,
    settings: Settings | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Judge a model on the rows of a dataset that are new to it.

    Args:
        workspace: that holds both.
        model: a dataset's name (its champion), NAME@challenger, NAME@VERSION, or an artifact's directory.
        dataset: to judge on.
        settings: see `Settings`.
        say: is told what is being done.

    Raises:
        ConfigError: a model, target or dataset is not known.
        DataError: too few rows are new to the models, for every target.
    """
    started = time.monotonic()
    settings = settings or Settings()
    words = [model] if settings.against is None else [model, settings.against]
    subjects = [find_subject(workspace, word) for word in words]
    targets = _targets(subjects, settings)
    data = load_training_data(workspace, dataset, targets)
    trained = _trained_data(workspace, subjects[0], data, targets)
    decisions = load_decisions(workspace, dataset)
    found: dict[str, dict[str, Any]] = {}
    shap: dict[str, ShapPoints] = {}
    skipped = dict(data.skipped)
    for target in data.rows:
        say(target)
        try:
            judges, rows = judged(subjects, target, data, settings.newest_ratio)
        except DataError as error:
            skipped[target] = str(error)
            continue
        material = Material(judges, rows, training_rows(judges[0], trained), decisions)
        found[target], shap[target] = evaluate_target(material, settings.seeds, settings.seed)
    if not found:
        raise DataError(next(iter(skipped.values())))
    return Evaluation(
        model, subjects[0].dataset, settings.against, dataset, found, skipped, data.notes, settings.seed,
        time.monotonic() - started, shap,
    )  # fmt: skip


def _targets(subjects: list[Subject], settings: Settings) -> list[str]:
    """Return the targets asked for, or all that the models have in common."""
    for subject in subjects:
        for target in settings.targets:
            if target not in subject.recipes:
                raise unknown(f"target of model {subject.name}:", target, subject.recipes)
    shared = [target for target in TARGETS if all(target in subject.recipes for subject in subjects)]
    if not shared:
        names = " and ".join(repr(subject.name) for subject in subjects)
        raise ConfigError(f"models {names} have no target in common; expected one. Name other models")
    return list(settings.targets) or shared


def _trained_data(
    workspace: Workspace, subject: Subject, data: TrainingData, targets: list[str]
) -> TrainingData | None:
    """Return the dataset that the model was trained on, where the workspace has it."""
    if subject.dataset == data.dataset:
        return data
    with open_store(workspace) as con:
        known = subject.dataset in dataset_names(con)
    try:
        return load_training_data(workspace, subject.dataset, targets) if known else None
    except DataError:  # its rows are no more what they were
        return None
