"""What a router loads: text models, a manifest and golden rows, verified byte by byte and number by number.

A router first runs `check` on the directory (or ``lodestar ship --check``), then loads it::

    models = load_artifact(Path("artifact"))     # every byte is verified again
    ttft_ms = models["ttft_ms"].predict(features)  # one row a candidate, columns as in FEATURES

`lodestar.features.definitions.candidate_features` makes these rows. `lodestar.models.serving.Decider` loads the same
artifact without LightGBM and gives the same numbers, from snapshots, in a few microseconds a decision.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numba
import numpy as np

from lodestar import __version__
from lodestar.data.errors import ArtifactError, ConfigError, unknown
from lodestar.data.schema import TTFT_MS
from lodestar.data.workspace import Workspace
from lodestar.features.definitions import FEATURES
from lodestar.models.latency import TARGETS, LatencyModel
from lodestar.models.registry.current import Trained, load_current, no_champion
from lodestar.models.registry.golden import GOLDEN, check_golden, golden_rows
from lodestar.models.seal import SCHEMA_VERSION, read_sealed, sealed, verify_files, write_manifest

__all__ = ["ShipReport", "check", "check_in_fresh_process", "load_artifact", "ship"]


@dataclass(frozen=True, slots=True)
class ShipReport:
    """What was shipped.

    Attributes:
        directory: where it lies.
        dataset: that the models were trained on.
        version: SHA-256 of the manifest, which holds the hashes of all else: it names the artifact.
        targets: target → trees.
        golden_rows: rows that both ways of scoring reproduced in a fresh process.
    """

    directory: str
    dataset: str
    version: str
    targets: dict[str, int]
    golden_rows: int

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self)


def ship(workspace: Workspace, dataset: str, to: Path, objective: str = TTFT_MS) -> ShipReport:
    """Write the current models of a dataset as an artifact, check it in a fresh process, and put it in place.

    `objective` is the target that the router is to minimise. A directory that is there already is replaced only if it
    is an artifact, or empty.
    """
    trained = load_current(workspace, dataset)
    if not trained:
        raise no_champion(workspace, dataset)
    if objective not in TARGETS:
        raise unknown("objective", objective, TARGETS)
    if objective not in trained:
        raise no_champion(workspace, dataset, objective)
    _require_replaceable(to)
    to.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{to.name}-", dir=to.parent))
    try:
        _write(scratch, dataset, trained, objective)
        report = check_in_fresh_process(scratch)
        _put_in_place(scratch, to)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    trees = {target: entry.model.trees for target, entry in trained.items()}
    return ShipReport(str(to), dataset, report["version"], trees, report["golden_rows"])


def check(directory: Path) -> dict[str, Any]:
    """Verify every byte, then score the golden rows through LightGBM and through the compiled scorer.

    Anything off raises `ArtifactError` with the name of the file.
    """
    manifest, models = _verified(directory)
    rows = check_golden(directory, models)
    return {
        "directory": str(directory),
        "dataset": manifest["dataset"],
        "version": manifest["manifest_sha256"],
        "objective": manifest["objective"],
        "targets": {target: model.trees for target, model in models.items()},
        "golden_rows": rows,
    }


def check_in_fresh_process(directory: Path) -> dict[str, Any]:
    """Run `check` in an interpreter that shares nothing with this one but the code."""
    code = "import json, sys; from pathlib import Path; from lodestar.models.artifact import check; "
    code += "print(json.dumps(check(Path(sys.argv[1]))))"
    done = subprocess.run([sys.executable, "-c", code, str(directory)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ArtifactError(f"{directory}: the check in a fresh process failed: {last}")
    report: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return report


def load_artifact(directory: Path) -> dict[str, LatencyModel]:
    """Return the model of each target, after verifying every byte: the router's way in."""
    return _verified(directory)[1]


def _verified(directory: Path) -> tuple[dict[str, Any], dict[str, LatencyModel]]:
    manifest = read_sealed(directory)
    verify_files(directory, manifest["sha256"])
    targets = manifest["targets"].items()
    return manifest, {target: LatencyModel.read(directory, target, entry["model"]) for target, entry in targets}


def _require_replaceable(to: Path) -> None:
    if to.exists() and not to.is_dir():
        raise ConfigError(f"{to} is a file; expected a directory, or nothing. Name another one")
    if to.is_dir() and any(to.iterdir()) and not sealed(to):
        raise ConfigError(f"{to} holds files that are no artifact; expected an artifact or nothing. Name another one")


def _put_in_place(scratch: Path, to: Path) -> None:
    """Move the old artifact aside and the new one in, and only then delete the old; put it back if that fails.

    No portable call swaps two directories: between the two renames, for microseconds, there is nothing at `to`, and a
    router that loads just then has to try again. Half an artifact is never there. A process killed at that moment
    leaves the old one beside it, in ``.<name>-old-…``.
    """
    scratch.chmod(0o755)  # a temporary directory is private to its user
    if not to.exists():
        scratch.rename(to)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{to.name}-old-", dir=to.parent))
    to.rename(aside / to.name)
    try:
        scratch.rename(to)
    except BaseException:
        (aside / to.name).rename(to)
        aside.rmdir()
        raise
    shutil.rmtree(aside)


def _write(directory: Path, dataset: str, trained: dict[str, Trained], objective: str) -> None:
    for target, entry in trained.items():
        entry.model.save_trees(directory, target)
    models = {target: entry.model for target, entry in trained.items()}
    ranges = next(iter(trained.values())).record["feature_ranges"]
    (directory / GOLDEN).write_text(golden_rows(models, ranges), encoding="utf-8")
    write_manifest(directory, _manifest(dataset, trained, objective))


def _manifest(dataset: str, trained: dict[str, Trained], objective: str) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "dataset": dataset,
        "objective": objective,
        "libraries": {
            "lodestar": __version__,
            "lightgbm": version("lightgbm"),
            "numpy": np.__version__,
            "numba": numba.__version__,
            "python": platform.python_version(),
        },
        "features": [
            {"name": f.name, "unit": f.unit, "formula": f.formula, "fields": list(f.fields)} for f in FEATURES
        ],
        "targets": {target: _target(trained[target]) for target in TARGETS if target in trained},
    }


def _target(entry: Trained) -> dict[str, Any]:
    names = (
        "data_fingerprint", "requests_seen", "seen_sha256", "seen", "window", "feature_ranges", "parameters", "seed",
        "metrics",
    )  # fmt: skip
    return {"model": entry.model.to_dict(), "trees": entry.model.trees} | {
        name: entry.record[name] for name in names if name in entry.record
    }
