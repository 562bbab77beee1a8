"""All that the study found, as one document, and as files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import polars as pl

from lodestar.pipeline.headline.cell import CellResult
from lodestar.pipeline.headline.learners import ONLINE, PUBLISHED, README
from lodestar.pipeline.headline.plan import CHANGES, Effort, Spec
from lodestar.pipeline.headline.summary import convergence_rows, summary_rows
from lodestar.reports.headline_page import page
from lodestar.reports.headline_picture import picture

__all__ = ["document_of", "read_document", "write_document"]

Document = Mapping[str, Any]

_FIGURES: Final = 5  # more than another machine gives again
_ORACLE: Final = "oracle-ttft"
_DRAWN: Final = ("sharing47", "conversation", "sessions")
_CELLS, _REST, _PAGE, _PICTURE = "headline.csv", "headline.json", "headline.md", "headline.svg"


def document_of(results: Sequence[CellResult], effort: Effort, command: str) -> Document:
    """Return what the study found, in numbers short enough to be written down."""
    learning = [row for result in results for row in result.learning]
    policies = [policy for policy in (ONLINE, PUBLISHED, README) if any(row["policy"] == policy for row in learning)]
    settings = {**asdict(effort), "conversation": effort.conversation.name if effort.conversation else None}
    found: Document = _rounded(
        {
            "settings": {"command": command, "policy": ONLINE, **settings},
            "summary": [row for policy in policies for row in summary_rows(results, policy)],
            "oracle": summary_rows(results, _ORACLE),
            "convergence": convergence_rows(learning),
            "cells": [row for result in results for row in result.rows],
            "learning": learning,
            "curves": [row for result in results if _is_drawn(result.spec) for row in result.curves],
        }
    )
    return found


def write_document(document: Document, folder: Path) -> dict[str, str]:
    """Write the page, the picture, the cells as CSV and the rest as JSON; return where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    rest = {key: value for key, value in document.items() if key != "cells"}
    texts = {
        _CELLS: pl.DataFrame(document["cells"], infer_schema_length=None).write_csv(),
        _REST: _json(rest),
        _PAGE: page(document),
        _PICTURE: picture(document),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return {Path(name).suffix[1:]: str(folder / name) for name in texts}


def read_document(folder: Path) -> Document:
    """Read what `write_document` wrote."""
    rest = json.loads((folder / _REST).read_text(encoding="utf-8"))
    texts = dict.fromkeys(("workload", "fleet", "policy", "mark", "variant", "settings"), pl.String)
    cells = pl.read_csv(folder / _CELLS, schema_overrides=texts).with_columns(pl.col(list(texts)).fill_null(""))
    return {**rest, "cells": cells.to_dicts()}


def _is_drawn(spec: Spec) -> bool:
    return spec.workload in CHANGES or (spec.workload in _DRAWN and spec.load == 0.75)


def _json(rest: Document) -> str:
    """Write one row a line, so that two runs can be compared."""
    parts = [
        f"{json.dumps(key)}: " + (_list(value) if isinstance(value, list) else json.dumps(value, ensure_ascii=False))
        for key, value in rest.items()
    ]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _list(rows: Sequence[Any]) -> str:
    lines = ",\n".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
    return f"[\n{lines}\n]"


def _rounded(value: Any) -> Any:
    """Round every number, however deep it lies."""
    if isinstance(value, float):
        return float(f"{value:.{_FIGURES}g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list) else value
