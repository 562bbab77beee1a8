"""From a workspace's models in use to an artifact in its place: written, checked in a fresh process, then moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from lodestar.data.errors import ArtifactError, unknown
from lodestar.data.schema import TTFT_MS
from lodestar.data.workspace import Workspace
from lodestar.models.exports.formats import require_writable
from lodestar.models.latency import TARGETS
from lodestar.models.registry.current import Trained, load_version, no_champion, read_index
from lodestar.models.registry.version_index import Index
from lodestar.models.shipping.check import check_in_fresh_process
from lodestar.models.shipping.gate import gate_of, passed_all, require_passed
from lodestar.models.shipping.place import put_in_place, require_replaceable, scratch_for
from lodestar.models.shipping.write import write_artifact

__all__ = ["ShipReport", "ship"]


@dataclass(frozen=True, slots=True)
class ShipReport:
    """What was shipped.

    Attributes:
        place: where it lies.
        dataset: that the models were trained on.
        version: SHA-256 of the manifest, which holds the hashes of all else: it names the artifact.
        targets: target → trees.
        golden_rows: rows that all ways of scoring reproduced in a fresh process.
        policy: 'name' and 'settings' of the policy that the router is to run.
        gate: target → what the promotion gate said, see `lodestar.models.shipping.gate.gate_of`.
        gated: whether it passed all of them.
        exports: format → how well it gives the golden rows, see `lodestar.models.exports.formats.check_export`.
        registered: target → its version in MLflow's registry, as in 'made-ttft_ms version 3', that is called
            'shipped' now; None for a model that was never registered.
    """

    place: str
    dataset: str
    version: str
    targets: dict[str, int]
    golden_rows: int
    policy: dict[str, Any]
    gate: dict[str, dict[str, Any]]
    gated: bool
    exports: dict[str, dict[str, Any]]
    registered: dict[str, str | None]

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self)


def ship(
    workspace: Workspace,
    dataset: str,
    to: str | Path,
    objective: str = TTFT_MS,
    *,
    policy: Mapping[str, Any] | None = None,
    exports: Sequence[str] = (),
    ungated: bool = False,
) -> ShipReport:
    """Write the models of a dataset that are in use as an artifact, check it in a fresh process, and put it in place.

    Args:
        workspace: where they are.
        dataset: that they were trained on.
        to: a directory, a name that ends in ``.tar``, or the URL of either. What is there already is replaced only if
            it is an artifact, or empty.
        objective: the latency that the router is to minimise.
        policy: 'name' and 'settings' of the policy that the router is to run; `lodestar-online` if left out.
        exports: formats to add: 'treelite', 'onnx'.
        ungated: whether models that the promotion gate did not pass are shipped too.

    Raises:
        ConfigError: there is no model in use, or none for the objective, or one that the gate did not pass; the place
            holds something else; a package is missing.
        ArtifactError: what was written does not give the golden rows.
    """
    index = read_index(workspace, dataset)
    if not index.champions:
        raise no_champion(workspace, dataset)
    if objective not in TARGETS:
        raise unknown("objective", objective, TARGETS)
    if objective not in index.champions:
        raise no_champion(workspace, dataset, objective)
    gate = gate_of(index)
    if not ungated:
        require_passed(dataset, gate)
    require_writable(exports)
    require_replaceable(to)
    trained = _in_use(workspace, dataset, index)
    with scratch_for(to) as scratch:
        write_artifact(
            scratch,
            {target: entry.model for target, entry in trained.items()},
            records={target: entry.record for target, entry in trained.items()},
            dataset=dataset,
            objective=objective,
            policy=policy,
            gate=gate,
            exports=exports,
            trained_at_s=_trained_at_s(index),
        )
        report = check_in_fresh_process(scratch)
        _require_run(report["exports"])
        put_in_place(scratch, to)
    told = {name: report[name] for name in ("version", "targets", "golden_rows", "policy", "gate", "exports")}
    registered = _called_shipped(workspace, index, report["version"])
    return ShipReport(place=str(to), dataset=dataset, gated=passed_all(gate), registered=registered, **told)


def _in_use(workspace: Workspace, dataset: str, index: Index) -> dict[str, Trained]:
    """Load the champions that `index` names, even if others are by now."""
    versions = {version: load_version(workspace, dataset, version) for version in set(index.champions.values())}
    return {target: versions[index.champions[target]][target] for target in TARGETS if target in index.champions}


def _trained_at_s(index: Index) -> float | None:
    entries = [entry for version in index.champions.values() if (entry := index.find(version))]
    return max((datetime.fromisoformat(entry["created_at"]).timestamp() for entry in entries), default=None)


def _require_run(exports: Mapping[str, Mapping[str, Any]]) -> None:
    for name, found in exports.items():
        if not found["checked"]:
            raise ArtifactError(
                f"the {name} export was {found['said']}; expected it to be run before it is shipped. "
                "Run: pip install 'lodestar-router[export]'"
            )


def _called_shipped(workspace: Workspace, index: Index, version: str) -> dict[str, str | None]:
    """Move the alias in MLflow's registry, which takes seconds to import, where any of the models is in it."""
    entries = {target: index.find(name) for target, name in index.champions.items()}
    about = {target: entry["targets"][target] for target, entry in entries.items() if entry}
    if not any("registered_model" in each for each in about.values()):
        return dict.fromkeys(about)
    from lodestar.models.shipping.alias import move_shipped

    return {target: move_shipped(workspace, each, version) for target, each in about.items()}
