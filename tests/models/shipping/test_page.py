"""What docs/artifact.md says is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from house import ROOT
from lodestar.models.seal import SCHEMA_VERSION, read_sealed
from lodestar.models.shipping.tarball import MAX_BYTES, MAX_FILES

PAGE = (ROOT / "docs" / "artifact.md").read_text()


def test_the_lines_that_load_an_artifact_load_it(sound: Path) -> None:
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL) if "Decider" in block)
    names: dict[str, object] = {"PLACE": str(sound)}
    exec(code, names)
    ttft = names["ttft"]
    assert (ttft.mean_ms.shape, ttft.quantiles_ms.shape) == ((3,), (3, 3))
    assert np.isfinite(ttft.mean_ms).all()


def test_every_field_of_a_manifest_is_explained(sound: Path) -> None:
    section = PAGE.partition("### The manifest")[2].partition("## Loading it")[0]
    explained = set(re.findall(r"^\| `(\w+)` ", section, flags=re.MULTILINE))
    assert explained == set(read_sealed(sound)) - {"sha256", "manifest_sha256"}
    assert f"| `schema_version` | {SCHEMA_VERSION};" in section


def test_the_limits_are_those_of_the_code() -> None:
    assert f"{MAX_FILES:,} files or {MAX_BYTES >> 20} MiB" in PAGE
