"""The models that policies predict by: what a dataset has trained."""

from __future__ import annotations

from lodestar.data.schema import TPOT_MS, TTFT_MS
from lodestar.data.store import open_store, require_dataset
from lodestar.data.workspace import Workspace
from lodestar.models.registry.current import load_current, no_champion
from lodestar.pipeline.replay.routing.contract import Models

__all__ = ["known_models", "trained_models"]


def known_models(workspace: Workspace, dataset: str) -> Models | None:
    """Return the dataset's current TTFT predictor, and its TPOT predictor if there is one; None without the first."""
    current = load_current(workspace, dataset)
    if TTFT_MS not in current:
        return None
    return Models.of(current[TTFT_MS].model, current[TPOT_MS].model if TPOT_MS in current else None)


def trained_models(workspace: Workspace, dataset: str) -> Models:
    """Return the same, where there must be some.

    Raises:
        ConfigError: the dataset is not known, or has no TTFT predictor.
    """
    models = known_models(workspace, dataset)
    if models is None:
        with open_store(workspace) as con:
            require_dataset(con, dataset)
        raise no_champion(workspace, dataset, TTFT_MS)
    return models
