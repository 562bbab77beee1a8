"""The formats that an artifact can carry its models in, and whether they give what the golden rows say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ArtifactError, ConfigError, unknown
from lodestar.models.exports import onnx_graph, treelite_trees
from lodestar.models.latency import LatencyModel
from lodestar.models.shipping.names import file_stem
from lodestar.models.textmodel import trees_of

__all__ = ["FORMATS", "ExportFormat", "check_export", "require_writable", "write_export"]

Floats = NDArray[np.float64]
Answers = dict[str, Floats]


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """One format.

    Attributes:
        writes: packages that writing takes.
        runs: packages that running it takes.
        tolerance: largest relative difference from the golden rows that is allowed.
        holds: what a file holds, in words.
        write: (directory, file stem, model) → names of the files.
        answers: (directory, file stem, `LatencyModel.to_dict`, rows) → 'mean' and each quantile → ms.
    """

    writes: tuple[str, ...]
    runs: tuple[str, ...]
    tolerance: float
    holds: str
    write: Callable[[Path, str, LatencyModel], list[str]]
    answers: Callable[[Path, str, Mapping[str, Any], Floats], Answers]


#: Both compare with thresholds in 64 bits: with 32, a feature next to one would fall on its other side. ONNX rounds the
#: sum of the leaves to 32.
FORMATS: Final = {
    "treelite": ExportFormat(
        ("treelite",), ("treelite",), 1e-9, treelite_trees.HOLDS, treelite_trees.write, treelite_trees.answers
    ),
    "onnx": ExportFormat(
        ("onnx",), ("onnxruntime",), 1e-6, onnx_graph.HOLDS, onnx_graph.write, onnx_graph.answers
    ),
}  # fmt: skip


def require_writable(names: Sequence[str]) -> None:
    """Refuse formats that are not known, or that cannot be written and run here.

    Raises:
        ConfigError: it names the format, or the package that is missing.
    """
    for name in names:
        if name not in FORMATS:
            raise unknown("export", name, FORMATS)
        missing = _missing([*FORMATS[name].writes, *FORMATS[name].runs])
        if missing:
            raise ConfigError(
                f"--with {name} needs the package {missing[0]}, which is not installed; expected it beside lodestar. "
                "Run: pip install 'lodestar-router[export]'"
            )


def write_export(name: str, directory: Path, models: Mapping[str, LatencyModel]) -> dict[str, Any]:
    """Write every model in a format, and return what the manifest says of it.

    Raises:
        ConfigError: the format is not known, or a package is missing.
        ArtifactError: a model has splits that the formats cannot express.
    """
    require_writable([name])
    for key, model in models.items():
        _require_nan_is_missing(name, key, model)
    form = FORMATS[name]
    files = {key: form.write(directory, file_stem(key), model) for key, model in models.items()}
    libraries = {package: str(import_module(package).__version__) for package in (*form.writes, *form.runs)}
    return {"files": files, "holds": form.holds, "tolerance": form.tolerance, "libraries": libraries}


def check_export(
    name: str, directory: Path, manifest: Mapping[str, Any], rows: Floats, expected_ms: Mapping[str, Answers]
) -> dict[str, Any]:
    """Run an export on the golden rows, where its packages are installed, and compare.

    Returns:
        'checked', 'worst_difference' (relative; None if not checked), 'tolerance' (the artifact's), 'said' in words.

    Raises:
        ArtifactError: an answer is off by more than the manifest allows, or the file cannot be run.
    """
    if name not in FORMATS:
        raise ArtifactError(
            f"{directory}: export {name!r} is not known; expected some of {', '.join(FORMATS)}. "
            "Ship it again with this version of lodestar"
        )
    tolerance = float(manifest["exports"][name]["tolerance"])
    if missing := _missing(FORMATS[name].runs):
        said = f"not checked: {missing[0]} is not installed"
        return {"checked": False, "worst_difference": None, "tolerance": tolerance, "said": said}
    worst = max(
        _worst(name, directory, key, manifest["targets"][key]["model"], rows, expected_ms[key], tolerance)
        for key in manifest["exports"][name]["files"]
    )
    said = f"{len(rows)} rows agree to {worst:.0e}, {tolerance:.0e} allowed"
    return {"checked": True, "worst_difference": worst, "tolerance": tolerance, "said": said}


def _require_nan_is_missing(name: str, key: str, model: LatencyModel) -> None:
    """Refuse splits that take zero as missing: neither format has them, and treelite would take the wrong branch."""
    for text in model.texts().values():
        if any(tree.zero_missing(node) for tree in trees_of(text) for node in range(len(tree.threshold))):
            raise ArtifactError(
                f"--with {name}: a split of {key} takes zero as missing; expected NaN alone to be. "
                f"Train without zero_as_missing, or ship without --with {name}"
            )


def _worst(
    name: str, directory: Path, key: str, model: Mapping[str, Any], rows: Floats, expected_ms: Answers, tolerance: float
) -> float:
    try:
        answers = FORMATS[name].answers(directory, file_stem(key), model, rows)
    except Exception as error:  # each library has errors of its own for a file that it cannot read
        said = " ".join(str(error).split()) or type(error).__name__
        raise ArtifactError(
            f"{directory}: the {name} export of {key} cannot be run ({said}); expected a model. Ship it again"
        ) from error
    worst = 0.0
    for answer, ms in expected_ms.items():
        off = np.abs(answers[answer] / ms - 1.0)
        row = int(np.argmax(off))  # NaN, if there is one
        if not off[row] <= tolerance:
            raise ArtifactError(
                f"{directory}: the {name} export gives {float(answers[answer][row])!r} ms for the {answer} {key} of "
                f"golden row {row}, expected {float(ms[row])!r} to {tolerance:.0e}. Ship it again without --with {name}"
            )
        worst = max(worst, float(off[row]))
    return worst


def _missing(packages: Sequence[str]) -> list[str]:
    return [package for package in packages if find_spec(package) is None]
