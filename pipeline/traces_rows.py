"""What the commands of the public traces show: rows of the catalogue, and sentences of a download."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from rich import box
from rich.table import Table
from rich.text import Text

from lodestar.data.traces.catalogue import catalogue
from lodestar.data.traces.download import trace_path
from lodestar.data.workspace import Workspace

__all__ = ["catalogue_rows", "catalogue_table", "fetched_sentences"]

Row = dict[str, object]


def catalogue_rows(workspace: Workspace) -> list[Row]:
    """Return every trace with all that the catalogue knows of it, and where it lies if it is in the workspace."""
    rows = []
    for trace in catalogue().values():
        path = trace_path(workspace, trace)
        rows.append({**asdict(trace), "pinned": trace.pinned, "path": str(path) if path.is_file() else None})
    return rows


def catalogue_table(rows: list[Row]) -> Table:
    """Draw the rows of a catalogue as wide as the terminal is; names are never cut."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("trace", no_wrap=True)
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("what (format, licence)")
    for row in rows:
        size = f"{row['size_bytes']:,}" if row["size_bytes"] else "?"
        said = f"{row['what']} ({row['format'] or 'no format yet'}, {row['licence']})"
        unknown = "" if row["sha256"] else "; no checksum known"
        here = "; in the workspace" if row["path"] else ""
        table.add_row(str(row["name"]), size, Text(said + unknown + here))
    return table


def fetched_sentences(fetched: Mapping[str, object]) -> dict[str, str]:
    """Return what to say of a download, by term.

    >>> shown = {"path": "p", "size_bytes": 2000, "sha256": "e3", "address": None, "downloaded_bytes": 0,
    ...          "resumed_from_bytes": 0, "notes": ["it was there"], "next": "lodestar ingest p --dataset a"}
    >>> fetched_sentences(shown)
    {'file': 'p', 'bytes': '2,000', 'SHA-256': 'e3', 'note': 'it was there', 'next': 'lodestar ingest p --dataset a'}
    """
    notes = fetched["notes"]
    said = {"file": str(fetched["path"]), "bytes": f"{fetched['size_bytes']:,}", "SHA-256": str(fetched["sha256"])}
    if fetched["address"]:
        said["from"] = str(fetched["address"])
    if fetched["resumed_from_bytes"]:
        said["resumed"] = f"{fetched['resumed_from_bytes']:,} bytes were there, {fetched['downloaded_bytes']:,} came"
    if isinstance(notes, list) and notes:
        said["note"] = "; ".join(str(note) for note in notes)
    return {**said, "next": str(fetched["next"])}
