"""From a path to what serves: every byte verified, the golden rows scored through the code that decides."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ArtifactError
from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.online.brain import Brain
from lodestar.models.registry.golden import GOLDEN, TOLERANCE
from lodestar.models.seal import read_sealed
from lodestar.models.serving import Decider
from lodestar.models.shipping.names import file_stem
from lodestar.models.shipping.opened import open_artifact
from lodestar.pipeline.online.settings import OnlineSettings
from lodestar.pipeline.serve.policy import served_policy

__all__ = ["Loaded", "check_served", "read_artifact"]

Floats = NDArray[np.float64]
Texts = dict[str, dict[str, str]]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What an artifact gave.

    Attributes:
        brain: the models, ready to predict.
        policy: the name of the policy that decides.
        settings: its settings.
        version: names the artifact.
        values: target → all of its model but the trees.
        texts: target → head ('' is the mean) → the trees as LightGBM writes them.
        golden_rows: rows that came out as they should.
        trained_at_s: Unix time; 0 where the artifact does not tell.
        loaded_at_s: Unix time.
    """

    brain: Brain
    policy: str
    settings: OnlineSettings
    version: str
    values: Mapping[str, Any]
    texts: Texts
    golden_rows: int
    trained_at_s: float
    loaded_at_s: float


def read_artifact(place: str | Path, policy: str | None = None) -> Loaded:
    """Read an artifact and check what it predicts.

    Args:
        place: directory, ``.tar``, or the URL of either.
        policy: settings that replace those of the artifact.

    Raises:
        ArtifactError: a file is missing, changed or of another version, or a golden row comes out otherwise.
        ConfigError: the policy is not one that this server runs.
    """
    with open_artifact(place) as directory:
        manifest = read_sealed(directory)
        decider = Decider.load(directory)
        rows = check_served(directory, decider)
        name, settings = served_policy(manifest, policy)
        texts = _texts(directory, manifest)
        if read_sealed(directory)["manifest_sha256"] != manifest["manifest_sha256"]:
            raise ArtifactError(f"{place} was replaced while it was read; expected one version. Reload again")
        return Loaded(
            brain=Brain.of(decider, manifest),
            policy=name,
            settings=settings,
            version=manifest["manifest_sha256"],
            values={target: entry["model"] for target, entry in manifest["targets"].items()},
            texts=texts,
            golden_rows=rows,
            trained_at_s=float(manifest.get("trained_at_s") or 0.0),
            loaded_at_s=time.time(),
        )


def check_served(directory: Path, decider: Decider) -> int:
    """Score the golden rows by the code that serves, and return how many there are.

    Raises:
        ArtifactError: an answer is off, or the rows are of other features.
    """
    path = directory / GOLDEN
    try:
        golden = json.loads(path.read_text(encoding="utf-8"))
        rows = np.array([[np.nan if x is None else x for x in row] for row in golden["rows"]], dtype=np.float64)
        expected, names = golden["expected_ms"], tuple(golden["features"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); expected golden rows. Ship it again") from error
    if names != FEATURE_NAMES:
        raise ArtifactError(f"{path}: other features than this version makes. Train and ship it again")
    for target, scorer in decider.targets.items():
        if target not in expected:
            raise ArtifactError(f"{path}: no golden rows for {target}; expected some of each target. Ship it again")
        for name, answers in scorer.everything_ms(rows).items():
            _require_equal(path, f"{name} {target}", answers, np.array(expected[target][name]))
    return len(rows)


def _require_equal(path: Path, what: str, answers: Floats, expected: Floats) -> None:
    off = np.abs(answers / expected - 1.0)
    worst = int(np.argmax(off))
    if not off[worst] <= TOLERANCE:
        raise ArtifactError(
            f"{path}: serving gives {float(answers[worst])!r} ms for the {what} of row {worst}, "
            f"expected {float(expected[worst])!r}. Train and ship it again"
        )


def _texts(directory: Path, manifest: Mapping[str, Any]) -> Texts:
    found: Texts = {}
    for target, entry in manifest["targets"].items():
        stem = file_stem(target)
        files = {"": f"{stem}.txt"} | {head: f"{stem}.{head}.txt" for head in entry["model"]["heads"]}
        found[target] = {head: (directory / file).read_text(encoding="utf-8") for head, file in files.items()}
    return found
