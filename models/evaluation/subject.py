"""The model that is meant by a word: a dataset's current models, one of its versions, or a shipped artifact."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lodestar.data.errors import ConfigError, unknown
from lodestar.data.workspace import Workspace
from lodestar.models.artifact import load_artifact
from lodestar.models.latency import LatencyModel
from lodestar.models.registry.current import (
    Trained,
    load_challenger,
    load_current,
    load_version,
    modelled_datasets,
    no_champion,
)
from lodestar.models.seal import read_sealed, sealed

__all__ = ["Recipe", "Subject", "find_subject"]

CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"
_EXPECTED: Final = "DATASET, DATASET@champion, DATASET@challenger, DATASET@VERSION or the directory of an artifact"


@dataclass(frozen=True, slots=True)
class Recipe:
    """A model for one target, and what is known of how it came about.

    Attributes:
        model: to evaluate.
        twin: the same recipe fitted without the newest requests, from ``record["held_out_from"]`` on; None in an
            artifact.
        record: what it has seen: see `lodestar.models.registry.record`.
    """

    model: LatencyModel
    twin: LatencyModel | None
    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Subject:
    """The models that a word means.

    Attributes:
        name: the word.
        dataset: that they were trained on.
        recipes: target → model.
    """

    name: str
    dataset: str
    recipes: dict[str, Recipe]


def find_subject(workspace: Workspace, word: str) -> Subject:
    """Return what `word` means; a dataset's name goes before a directory.

    Raises:
        ConfigError: nothing of this name is there.
        ArtifactError: the directory holds a damaged artifact.
    """
    dataset, _, version = word.partition("@")
    known = modelled_datasets(workspace)
    if dataset in known:
        return _of_workspace(word, dataset, _trained(workspace, dataset, version or CHAMPION))
    if sealed(Path(word)):
        return _of_artifact(word)
    names = f"{unknown('model', dataset, known)}. " if known else f"model {word!r} is not known: nothing is trained. "
    raise ConfigError(f"{names}Expected {_EXPECTED}. Run: lodestar train {dataset}")


def _trained(workspace: Workspace, dataset: str, version: str) -> dict[str, Trained]:
    if version == CHALLENGER:
        return load_challenger(workspace, dataset)
    if version != CHAMPION:
        return load_version(workspace, dataset, version)
    if found := load_current(workspace, dataset):
        return found
    raise no_champion(workspace, dataset)


def _of_workspace(name: str, dataset: str, trained: dict[str, Trained]) -> Subject:
    return Subject(name, dataset, {t: Recipe(each.model, each.held_out, each.record) for t, each in trained.items()})


def _of_artifact(word: str) -> Subject:
    directory = Path(word)
    models, manifest = load_artifact(directory), read_sealed(directory)
    return Subject(
        word, manifest["dataset"], {t: Recipe(model, None, manifest["targets"][t]) for t, model in models.items()}
    )
