"""Verifying an artifact: every byte, every way of scoring, every export that can be run here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from lodestar.data.errors import ArtifactError
from lodestar.models.exports.formats import check_export
from lodestar.models.latency import LatencyModel
from lodestar.models.registry.golden import check_golden, read_golden
from lodestar.models.seal import MANIFEST, read_sealed, verify_files
from lodestar.models.serving import Decider
from lodestar.models.shipping.names import file_stem
from lodestar.models.shipping.opened import open_artifact

__all__ = ["check", "check_in_fresh_process", "load_artifact"]

_FIELDS: Final = frozenset({"dataset", "objective", "trained_at_s", "policy", "gate", "exports"})


def check(place: str | Path) -> dict[str, Any]:
    """Verify every byte, then score the golden rows by LightGBM, as the replay does, as a router does and by exports.

    Args:
        place: a directory, a ``.tar``, or the URL of either.

    Returns:
        what a router's log should say of it, ready for JSON: 'place', 'dataset', 'version', 'objective', 'policy',
        'trained_at_s', 'gate', 'targets' (model → trees), 'golden_rows', and 'exports' (format → what `check_export`
        returned).

    Raises:
        ArtifactError: anything is off; it names the file.
    """
    with open_artifact(place) as directory:
        manifest, models = _verified(directory)
        _require_whole(directory, manifest)
        rows = check_golden(directory, models, Decider.load(directory))
        exports = _exports(directory, manifest)
    return {
        "place": str(place),
        "dataset": manifest["dataset"],
        "version": manifest["manifest_sha256"],
        "objective": manifest["objective"],
        "policy": manifest["policy"],
        "trained_at_s": manifest["trained_at_s"],
        "gate": manifest["gate"],
        "targets": {key: model.trees for key, model in models.items()},
        "golden_rows": rows,
        "exports": exports,
    }


def check_in_fresh_process(directory: Path) -> dict[str, Any]:
    """Run `check` in an interpreter that shares nothing with this one but the code."""
    code = "import json, sys; from pathlib import Path; from lodestar.models.shipping.check import check; "
    code += "print(json.dumps(check(Path(sys.argv[1]))))"
    done = subprocess.run([sys.executable, "-c", code, str(directory)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ArtifactError(f"{directory}: the check in a fresh process failed: {last}")
    report: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return report


def load_artifact(place: str | Path) -> dict[str, LatencyModel]:
    """Return the models of an artifact by their names (TARGET or TARGET@KIND), after verifying every byte."""
    with open_artifact(place) as directory:
        return _verified(directory)[1]


def _verified(directory: Path) -> tuple[dict[str, Any], dict[str, LatencyModel]]:
    manifest = read_sealed(directory)
    verify_files(directory, manifest["sha256"])
    targets = manifest["targets"].items()
    return manifest, {key: LatencyModel.read(directory, file_stem(key), entry["model"]) for key, entry in targets}


def _require_whole(directory: Path, manifest: dict[str, Any]) -> None:
    missing = sorted(_FIELDS - manifest.keys())
    if missing:
        raise ArtifactError(
            f"{directory / MANIFEST} has no {missing[0]!r}; expected what `lodestar ship` writes. "
            "Ship it again with this version of lodestar"
        )


def _exports(directory: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    if not manifest["exports"]:
        return {}
    rows, expected_ms = read_golden(directory)
    return {name: check_export(name, directory, manifest, rows, expected_ms) for name in manifest["exports"]}
