"""The models of a dataset: what is in use, what was fitted, and what was in use before.

A version holds what one training fitted. The index names the champion of each target: what policies predict by and what
is shipped. It is replaced in one step, after the version is complete: a process that is killed leaves the old champions
or the new ones, never half of each.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lodestar.data.errors import ConfigError, unknown
from lodestar.data.workspace import Workspace
from lodestar.models.registry.version_files import (
    INDEX,
    Trained,
    add_version,
    change_index,
    load_models,
    read_index_at,
    require_whole,
)
from lodestar.models.registry.version_index import Index, added, challengers, crowned, resolved, rolled_back

__all__ = [
    "Trained",
    "champions",
    "load_challenger",
    "load_current",
    "load_version",
    "modelled_datasets",
    "no_champion",
    "promote",
    "read_index",
    "roll_back",
    "save_current",
    "save_version",
]


def load_current(workspace: Workspace, dataset: str) -> dict[str, Trained]:
    """Return the champion of each target of a dataset; empty where there is none."""
    return load_models(_home(workspace, dataset), lambda index: index.champions)


def load_challenger(workspace: Workspace, dataset: str) -> dict[str, Trained]:
    """Return what was fitted last for each target, whatever its verdict; empty where nothing was."""
    return load_models(_home(workspace, dataset), challengers)


def load_version(workspace: Workspace, dataset: str, version: str) -> dict[str, Trained]:
    """Return the models of one version, which may be given by the beginning of its name.

    Raises:
        ConfigError: it is not known, or is kept no more.
    """

    def chosen(index: Index) -> dict[str, str]:
        entry = resolved(index, version)
        return dict.fromkeys(entry["targets"], entry["version"])

    return load_models(_home(workspace, dataset), chosen)


def champions(workspace: Workspace, dataset: str) -> dict[str, str]:
    """Return target → version in use; empty where there is none."""
    return read_index(workspace, dataset).champions


def modelled_datasets(workspace: Workspace) -> list[str]:
    """Return the names of the datasets that have models."""
    return sorted(path.parent.name for path in workspace.models.glob(f"*/{INDEX}"))


def read_index(workspace: Workspace, dataset: str) -> Index:
    """Return what versions there are and which were champions when; an empty index where nothing was trained.

    Raises:
        ArtifactError: the models are of a version of lodestar that kept no index.
    """
    return read_index_at(_home(workspace, dataset))


def no_champion(workspace: Workspace, dataset: str, target: str | None = None) -> ConfigError:
    """Make the error for a command that needs a champion where there is none: it says why, and what to do."""
    what = f"{target} model" if target else "model"
    versions = read_index(workspace, dataset).versions
    entries = [entry for entry in versions if target is None or target in entry["targets"]]
    if not entries:
        return ConfigError(f"dataset {dataset!r} has no trained {what}; expected one. Run: lodestar train {dataset}")
    failed = _failed(entries[-1], target)
    return ConfigError(
        f"dataset {dataset!r} has no {what} in use: no version passed the promotion gate{failed}. "
        f"See lodestar models {dataset}; to use the newest all the same, run: lodestar models promote {dataset}"
    )


def save_version(
    workspace: Workspace,
    dataset: str,
    trained: Mapping[str, Trained],
    about: Mapping[str, dict[str, Any]] | None = None,
    champions: Collection[str] = (),
    why: str = "promoted by the gate",
) -> str:
    """Keep what a training fitted as a version, make it the champion of some targets, and return its name.

    The name is the hash of the content. Versions that are neither among the newest, nor in use, nor what a rollback
    restores are removed. Of processes that save at the same time, none touches what another is still writing.

    Args:
        workspace: where.
        dataset: that they were trained on.
        trained: target → model; at least one.
        about: target → what else to remember of it, ready for JSON: 'mode', 'reason', 'verdict', 'run_id',
            'registered_model', 'registered_version'.
        champions: the targets that it becomes the champion of.
        why: in words, for the list of versions.
    """

    def changed(index: Index, version: str) -> Index:
        now = _now()
        entry = {"version": version, "created_at": now, "targets": _about(trained, about or {})}
        return crowned(added(index, entry, champions), dict.fromkeys(champions, version), why, now)

    return add_version(_home(workspace, dataset), trained, changed)


def save_current(workspace: Workspace, dataset: str, trained: dict[str, Trained]) -> str:
    """Keep these as a version and make it the champion of all its targets, whatever a gate says of it."""
    return save_version(workspace, dataset, trained, champions=trained, why="promoted by hand")


def promote(
    workspace: Workspace, dataset: str, version: str | None = None, targets: Collection[str] | None = None
) -> Index:
    """Make a version the champion of its targets, by hand; the newest one of each target if none is named.

    Args:
        workspace: where.
        dataset: that it was trained on.
        version: its name, or the beginning of it.
        targets: only these; all that it has if left out.

    Raises:
        ConfigError: nothing was trained, the version or a target is not known, or it is the champion already.
        ArtifactError: its files were changed.
    """

    def changed(index: Index) -> Index:
        entry = resolved(index, version) if version is not None else None
        known = dict.fromkeys(entry["targets"], entry["version"]) if entry else challengers(index)
        if missing := [target for target in targets or () if target not in known]:
            raise unknown("target", missing[0], known)
        wanted = {target: known[target] for target in (known if targets is None else targets)}
        for name in sorted(set(wanted.values())):
            require_whole(_home(workspace, dataset) / name)
        after = crowned(index, wanted, "promoted by hand", _now())
        if after is index:
            those = ", ".join(sorted(set(wanted.values())))
            raise ConfigError(f"version {those} is in use already; expected another. See lodestar models {dataset}")
        return after

    return _change(workspace, dataset, changed)


def roll_back(workspace: Workspace, dataset: str, to: str | None = None) -> Index:
    """Put the champions before these back in use, or those of the last time when version `to` was one.

    Raises:
        ConfigError: there are none, or they are kept no more.
    """
    return _change(workspace, dataset, lambda index: rolled_back(index, to, _now()))


def _failed(entry: dict[str, Any], target: str | None) -> str:
    """Say at which checks a version failed."""
    verdicts = [about.get("verdict") or {} for name, about in entry["targets"].items() if target in (None, name)]
    checks = [check for verdict in verdicts for check in verdict.get("checks", ()) if check["passed"] is False]
    names = ", ".join(dict.fromkeys(check["name"] for check in checks))
    return f"; the newest, {entry['version']}, failed at {names}" if names else ""


def _change(workspace: Workspace, dataset: str, changed: Callable[[Index], Index]) -> Index:
    if not read_index(workspace, dataset).versions:
        raise no_champion(workspace, dataset)
    return change_index(_home(workspace, dataset), changed)


def _home(workspace: Workspace, dataset: str) -> Path:
    return workspace.models / dataset


def _about(trained: Mapping[str, Trained], about: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    seen = ("data_fingerprint", "requests_seen")
    return {
        target: {"trees": entry.model.trees}
        | {name: entry.record[name] for name in seen if name in entry.record}
        | about.get(target, {})
        for target, entry in trained.items()
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
