"""What `ingest` and `inspect` found, in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from lodestar.data.schema import E2E_MS, OUTPUT_TOKENS, PROMPT_TOKENS, TPOT_MS, TTFT_MS
from lodestar.reports.grids import Cell, Column, Grid, Mark
from lodestar.reports.numbers import decimals, number, percent, plain
from lodestar.reports.tables import grid_table, sentences

__all__ = ["ingest_tables", "inspect_tables"]

SPREADS: Final = {
    PROMPT_TOKENS: ("prompt", "tokens"),
    OUTPUT_TOKENS: ("output", "tokens"),
    TTFT_MS: ("TTFT", "ms"),
    TPOT_MS: ("TPOT", "ms"),
    E2E_MS: ("E2E", "ms"),
}


def ingest_tables(report: Mapping[str, Any]) -> RenderableType:
    """Draw an ingest report: one row a file, and what to know of how it was read.

    Args:
        report: ``IngestReport.to_dict()``.
    """
    sources = report["sources"]
    columns = [
        Column("file", "", [Cell(PurePath(source["file"]).name) for source in sources], left=True),
        Column("format", "", [Cell(source["format"]) for source in sources], left=True),
        Column("read", "rows", [Cell(number(source["rows_read"])) for source in sources]),
        Column("stored", "rows", [Cell(number(source["rows_stored"])) for source in sources]),
        Column("rejected", "rows", [_rejected(source["rows_rejected"]) for source in sources]),
        Column(
            "", "", [Cell("was stored before" if source["already_stored"] else "") for source in sources], left=True
        ),
    ]
    notes = [f"{PurePath(source['file']).name}: {note}" for source in sources for note in source["notes"]]
    title = f"Dataset {report['dataset']}: {number(report['rows_stored'])} rows stored"
    if report["rows_rejected"]:
        notes.append(f"`lodestar inspect {report['dataset']}` shows the lines that were rejected, and why.")
    return grid_table(Grid(title, columns, notes))


def inspect_tables(summary: Mapping[str, Any]) -> RenderableType:
    """Draw the summary of a dataset: what it holds, what is inferred, what it can be used for.

    Args:
        summary: what `inspect_dataset` returns.
    """
    parts = [_heading(summary), grid_table(_uses(summary)), grid_table(_spreads(summary))]
    if summary["instances"]:
        parts.append(grid_table(_instances(summary)))
    parts.append(grid_table(_coverage(summary)))
    if summary["inferred"]:
        parts.append(sentences("Inferred, because the log does not say", summary["inferred"]))
    if summary["rejects"]:
        parts.append(grid_table(_rejects(summary)))
    return Group(*parts)


def _rejected(rows: int) -> Cell:
    return Cell(number(rows), mark="bad" if rows else "")


def _heading(summary: Mapping[str, Any]) -> Text:
    time = summary["time"]
    text = Text().append("Dataset ").append(summary["dataset"], style="bold")
    text.append(f": {number(summary['rows'])} requests to {len(summary['instances'])} instances")
    text.append(f", logged under {summary['policy']}\n" if summary["policy"] else ", logging policy not known\n")
    if time["span_s"] is not None:
        text.append(f"{number(time['span_s'], 1)} s of arrivals, {number(time['rate_per_s'], 2)} requests/s")
        text.append(f", from {time['origin']}\n" if time["origin"] else "\n")
    for source in summary["sources"]:
        text.append(f"{source['file']} ({source['format']}, {number(source['rows'])} rows)\n", style="dim")
    return text


def _uses(summary: Mapping[str, Any]) -> Grid:
    allows = summary["allows"]
    columns = [
        Column("use", "", [Cell(use) for use in allows], left=True),
        Column("", "", [_allowed(verdict["allowed"]) for verdict in allows.values()], left=True),
        Column("", "", [Cell(verdict["why_not"] or "") for verdict in allows.values()], left=True),
    ]
    return Grid("What it can be used for", columns)


def _allowed(allowed: bool) -> Cell:
    return Cell("yes", mark="good") if allowed else Cell("no", mark="bad")


def _spreads(summary: Mapping[str, Any]) -> Grid:
    known = {key: summary[key] for key in SPREADS if summary[key] is not None}
    columns = [Column("", "", [Cell(" ".join(SPREADS[key])) for key in known], left=True)]
    for statistic in ("mean", "p50", "p90", "p99", "max"):
        cells = [Cell(number(found[statistic], _places(key, found))) for key, found in known.items()]
        columns.append(Column(statistic.upper() if statistic.startswith("p") else statistic, "", cells))
    return Grid("Requests and outcomes", columns)


def _places(key: str, found: Mapping[str, float]) -> int:
    return 0 if key in (PROMPT_TOKENS, OUTPUT_TOKENS) else decimals(found.values())


def _instances(summary: Mapping[str, Any]) -> Grid:
    rows = summary["instances"]
    columns = [
        Column("instance", "", [Cell(row["instance"]) for row in rows], left=True),
        Column("GPU", "", [Cell(plain(row["gpu"])) for row in rows], left=True),
        Column("requests", "", [Cell(number(row["requests"])) for row in rows]),
        Column("share", "%", [Cell(percent(row["share"])) for row in rows]),
    ]
    return Grid("Instances", columns)


def _coverage(summary: Mapping[str, Any]) -> Grid:
    known = {**summary["coverage"], "propensity": summary["propensity"]["known_ratio"]}
    columns = [
        Column("field", "", [Cell(field) for field in known], left=True),
        Column("logged", "%", [_share(ratio) for ratio in known.values()]),
    ]
    note = summary["propensity"]["note"]
    return Grid("What the log says", columns, [f"propensity: {note}"] if note else [])


def _share(ratio: float) -> Cell:
    mark: Mark = "good" if ratio == 1 else "" if ratio > 0 else "bad"
    return Cell(percent(ratio), mark=mark)


def _rejects(summary: Mapping[str, Any]) -> Grid:
    rows = summary["rejects"]
    columns = [
        Column("reason", "", [Cell(row["reason"]) for row in rows], left=True),
        Column("rows", "", [Cell(number(row["rows"]), mark="bad") for row in rows]),
        Column("first at", "", [Cell(_place(row["first"])) for row in rows], left=True),
    ]
    return Grid("Rejected rows", columns)


def _place(first: list[Mapping[str, Any]]) -> str:
    return f"{PurePath(first[0]['file']).name} line {first[0]['line']}" if first else ""
