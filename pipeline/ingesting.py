"""What `lodestar ingest` does with its options: which format reads, and what is said meanwhile."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lodestar.data.errors import ConfigError, DataError
from lodestar.data.formats.mapped import mapped_format
from lodestar.data.ingest import IngestReport, ingest
from lodestar.data.mapping.suggest import suggest_map
from lodestar.data.sources.source import sources_of
from lodestar.data.workspace import Workspace

__all__ = ["ingest_logs", "print_draft", "require_rows", "suggested_map"]


def ingest_logs(
    workspace: Workspace,
    paths: Sequence[Path],
    dataset: str | None,
    format: str | None,
    mapping: Path | None,
    logging_policy: str | None,
    strict: bool,
    progress: Callable[[int], None],
) -> IngestReport:
    """Ingest by a format that is named, mapped or found out."""
    if dataset is None:
        raise ConfigError("Missing option '--dataset'; expected a name to keep the log under. Add it")
    if mapping is not None and format is not None:
        raise ConfigError("--map and --format both say how to read the log; expected one of them. Leave one out")
    how = mapped_format(mapping) if mapping is not None else format
    return ingest(workspace, paths, dataset, how, logging_policy, progress, strict, _say)


def suggested_map(paths: Sequence[Path]) -> str:
    """Return the draft of a mapping file for one log."""
    with sources_of(paths) as sources:
        if len(sources) != 1:
            raise ConfigError(
                f"--suggest-map reads one log, and {len(sources)} were named; expected one. Name it alone"
            )
        return suggest_map(sources[0])


def print_draft(as_json: bool, draft: str) -> None:
    """Print a mapping file on stdout as it is, so that it can be piped into a file."""
    sys.stdout.write(json.dumps({"map": draft}, indent=2) + "\n" if as_json else draft)


def require_rows(report: dict[str, Any]) -> None:
    """Refuse to call an ingest done if a source gave rows and none of them could be used."""
    for source in report["sources"]:
        if source["rows_read"] and not source["rows_stored"] and not source["already_stored"]:
            raise DataError(
                f"{source['file']}: none of its {source['rows_read']} rows could be used; expected some. "
                f"lodestar inspect {report['dataset']} --rejects shows why; the same requests under another router "
                "belong under another --dataset"
            )
        if source["rows_rejected"] > source["rows_stored"]:
            name, refused = report["dataset"], f"{source['rows_rejected']} of {source['rows_read']} rows were refused"
            _say(
                f"warning: {source['file']}: {refused}; lodestar inspect {name} --rejects shows why, "
                f"lodestar drop {name} takes it all back"
            )


def _say(sentence: str) -> None:
    sys.stderr.write(f"lodestar: {sentence}\n")
    sys.stderr.flush()
