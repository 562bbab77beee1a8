"""Versions on disk and in MLflow's registry, kept in step.

The index on disk decides what is in use; it changes first, in one step, and the aliases in the registry follow. A
process that is killed in between leaves aliases behind that the next one sets right.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import mlflow

from lodestar.data.workspace import Workspace
from lodestar.models.candidate import Outcome
from lodestar.models.registry import current
from lodestar.models.registry.tracking import quiet, use_store
from lodestar.models.registry.version_index import Index, challengers

__all__ = ["CHALLENGER", "CHAMPION", "align", "keep", "promote", "roll_back"]

CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"


def keep(
    workspace: Workspace,
    dataset: str,
    outcomes: Mapping[str, Outcome],
    logged: Mapping[str, Mapping[str, Any]] | None = None,
    always: bool = False,
) -> str | None:
    """Keep what was fitted as a version, put in use what passed the gate, and return the version; None if nothing was.

    Args:
        workspace: where.
        dataset: that it was trained on.
        outcomes: target → what became of it.
        logged: target → what `log_outcome` returned, and 'run_id'.
        always: whether to put in use what did not pass, too.
    """
    trained = {target: outcome.trained for target, outcome in outcomes.items() if outcome.trained is not None}
    if not trained:
        return None
    about = {target: _about(outcomes[target]) | dict((logged or {}).get(target, {})) for target in trained}
    promoted = [target for target in trained if always or outcomes[target].promoted]
    why = "promoted by the gate" if all(outcomes[target].promoted for target in promoted) else "promoted by hand"
    version = current.save_version(workspace, dataset, trained, about, promoted, why)
    align(workspace, dataset)
    return version


def promote(
    workspace: Workspace, dataset: str, version: str | None = None, targets: Collection[str] | None = None
) -> Index:
    """Put a version in use by hand, whatever its verdict; the newest one if none is named."""
    current.promote(workspace, dataset, version, targets)
    return align(workspace, dataset)


def roll_back(workspace: Workspace, dataset: str, to: str | None = None) -> Index:
    """Put the champions before these back in use, or those of the last time when version `to` was one."""
    current.roll_back(workspace, dataset, to)
    return align(workspace, dataset)


def align(workspace: Workspace, dataset: str) -> Index:
    """Let the aliases in the registry say what the index says, and return it."""
    index = current.read_index(workspace, dataset)
    models = {
        target: about["registered_model"]
        for entry in index.versions
        for target, about in entry["targets"].items()
        if "registered_model" in about
    }
    if models:
        with quiet():
            use_store(workspace)
            for target, model in models.items():
                why = f"{index.reigns[-1].why} at {index.reigns[-1].since}" if index.reigns else ""
                _align(model, CHAMPION, _registered(index, index.champions, target), why)
                _align(model, CHALLENGER, _registered(index, challengers(index), target))
    return index


def _align(model: str, alias: str, version: str | None, why: str = "") -> None:
    client = mlflow.MlflowClient()
    now = client.get_registered_model(model).aliases.get(alias)
    if version is None and now is not None:
        client.delete_registered_model_alias(model, alias)
    elif version is not None and version != str(now):
        client.set_registered_model_alias(model, alias, version)
        if why:
            client.set_model_version_tag(model, version, alias, why)


def _registered(index: Index, versions: Mapping[str, str], target: str) -> str | None:
    """Return the registry's number of a target's version; None where there is none, or it was never registered."""
    entry = index.find(versions[target]) if target in versions else None
    number = entry["targets"][target].get("registered_version") if entry else None
    return None if number is None else str(number)


def _about(outcome: Outcome) -> dict[str, Any]:
    verdict = outcome.verdict.to_dict() if outcome.verdict else None
    return {"mode": outcome.mode, "reason": outcome.reason, "verdict": verdict}
