"""What `ingest` and `inspect` found, in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from lodestar.data.schema import E2E_MS, OUTPUT_TOKENS, PROMPT_TOKENS, TPOT_MS, TTFT_MS
from lodestar.reports.grids import Cell, Column, Grid, Mark
from lodestar.reports.numbers import decimals, number, percent, plain
from lodestar.reports.tables import grid_table, sentences

__all__ = ["ingest_tables", "inspect_tables", "reject_tables"]

BARS: Final = "▁▂▃▄▅▆▇█"
RAW_CHARACTERS: Final = 160

_UNWEIGHTED: Final = "One step without weights is dm, the predictor, alone: no tails and no derivatives."

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
    notes = _notes([(source["file"], note) for source in sources for note in source["notes"]])
    notes += [
        f"{PurePath(source['file']).name}: replaces its earlier version, {source['replaced']}"
        for source in sources
        if source["replaced"]
    ]
    notes += [f"{PurePath(skipped['file']).name}: skipped, {skipped['why']}" for skipped in report["skipped"]]
    title = f"Dataset {report['dataset']}: {number(report['rows_stored'])} rows stored"
    if report["rows_rejected"]:
        notes.append(
            f"`lodestar inspect {report['dataset']}` counts the rejected rows, `--rejects` shows each of them."
        )
    return grid_table(Grid(title, columns, notes))


def inspect_tables(summary: Mapping[str, Any]) -> RenderableType:
    """Draw the summary of a dataset: what it holds, what is inferred, what it can be used for.

    Args:
        summary: what `inspect_dataset` returns.
    """
    parts = [
        _heading(summary),
        grid_table(_sources(summary)),
        grid_table(_uses(summary)),
        grid_table(_spreads(summary)),
    ]
    if summary["rates"]:
        parts.append(_rates(summary))
    if summary["instances"]:
        parts.append(grid_table(_instances(summary)))
    if summary["engine_samples"]:
        parts.append(grid_table(_samples(summary)))
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
    text.append(f", logged under {_logged_under(summary)}\n")
    if time["span_s"] is not None:
        text.append(f"{number(time['span_s'], 1)} s of arrivals, {number(time['rate_per_s'], 2)} requests/s")
        text.append(f", from {time['origin']}\n" if time["origin"] else "\n")
    sharing = summary["prefix_sharing"]
    if sharing and sharing["blocks"]:
        text.append(
            f"{percent(sharing['seen_ratio'])} % of prompt tokens stand in a prefix that an earlier request had, "
            f"{percent(sharing['requests_ratio'])} % of requests have one\n"
        )
    return text


def _logged_under(summary: Mapping[str, Any]) -> str:
    several = [f"{name} ({number(count)})" for name, count in summary.get("policies", {}).items()]
    return " and ".join(several) or summary["policy"] or "a policy that is not known"


def _sources(summary: Mapping[str, Any]) -> Grid:
    rows = summary["sources"]
    columns = [
        Column("source", "", [Cell(PurePath(row["file"]).name, note=row["sha256"][:12]) for row in rows], left=True),
        Column(
            "format", "", [Cell(" ".join(filter(None, (row["format"], row["version"])))) for row in rows], left=True
        ),
        Column("licence", "", [Cell(plain(row["licence"])) for row in rows], left=True),
        Column("rows", "", [Cell(number(row["rows"])) for row in rows]),
        Column("rejected", "", [_rejected(row["rejected"]) for row in rows]),
        Column("times", "", [Cell(_times(row)) for row in rows], left=True),
    ]
    notes = _notes([(row["file"], note) for row in rows for note in (row["notes"] or "").split("\n") if note])
    return Grid("Sources", columns, notes)


def _notes(told: list[tuple[str, str]]) -> list[str]:
    """Say each sentence once, with the files of which it is true."""
    files: dict[str, list[str]] = {}
    for file, note in told:
        files.setdefault(note, []).append(PurePath(file).name)
    return [f"{_names(names)}: {note}" for note, names in files.items()]


def _names(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more like it" if len(names) > 1 else "")


def _times(source: Mapping[str, Any]) -> str:
    first, last = source["first_at_s"], source["last_at_s"]
    if first is None:
        return "not logged"
    if source["clock"] != "unix":
        return f"{number(last - first, 1)} s by {source['clock']}"
    return f"{_moment(first)} – {_moment(last)} UTC"


def _moment(at_s: float) -> str:
    try:
        return f"{datetime.fromtimestamp(at_s, tz=UTC):%Y-%m-%d %H:%M:%S}"
    except (OverflowError, OSError, ValueError):
        return f"{number(at_s)} s"


def _rates(summary: Mapping[str, Any]) -> Text:
    """Draw the rate over time as a line of bars."""
    values = [row["requests_per_s"] for row in summary["rates"]]
    top = max(values)
    bars = "".join(BARS[min(int(value / top * len(BARS)), len(BARS) - 1)] if top else BARS[0] for value in values)
    text = Text().append("Requests a second over time\n", style="bold").append(f"\n{bars}")
    return text.append(f"  {number(min(values), 2)} to {number(top, 2)}, {len(values)} equal spans\n", style="dim")


def _samples(summary: Mapping[str, Any]) -> Grid:
    rows = summary["engine_samples"]
    columns = [
        Column("instance", "", [Cell(plain(row["instance"])) for row in rows], left=True),
        Column("samples", "", [Cell(number(row["samples"])) for row in rows]),
        Column("span", "s", [Cell(number(row["last_at_s"] - row["first_at_s"], 1)) for row in rows]),
        Column("running", "mean", [Cell(number(row["running_mean"], 1)) for row in rows]),
        Column("waiting", "mean", [Cell(number(row["waiting_mean"], 1)) for row in rows]),
        Column("KV usage", "max %", [Cell(percent(row["kv_usage_max"])) for row in rows]),
    ]
    return Grid("What the engines said of themselves", columns)


def _uses(summary: Mapping[str, Any]) -> Grid:
    allows = summary["allows"]
    columns = [
        Column("use", "", [Cell(use) for use in allows], left=True),
        Column("", "", [_allowed(verdict["allowed"]) for verdict in allows.values()], left=True),
        Column("", "", [Cell(verdict["why_not"] or "") for verdict in allows.values()], left=True),
    ]
    unweighted = [allows[use]["allowed"] for use in ("one-step", "weighted one-step")] == [True, False]
    return Grid("What it can be used for", columns, [_UNWEIGHTED] if unweighted else [])


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
        Column("in flight", "mean", [Cell(number(row["inflight_mean"], 1)) for row in rows]),
        Column("waiting", "mean", [Cell(number(row["waiting_mean"], 1)) for row in rows]),
        Column("KV usage", "%", [Cell(percent(row["kv_usage_mean"])) for row in rows]),
        Column("hit", "%", [Cell(percent(row["hit_mean"])) for row in rows]),
        Column("TTFT", "ms", [Cell(number(row["ttft_mean_ms"])) for row in rows]),
    ]
    return Grid("Instances", columns)


def _coverage(summary: Mapping[str, Any]) -> Grid:
    known = {**summary["coverage"], "propensity (logged or inferred)": summary["propensity"]["known_ratio"]}
    columns = [
        Column("field", "", [Cell(field) for field in known], left=True),
        Column("known", "%", [_share(ratio) for ratio in known.values()]),
    ]
    propensity = summary["propensity"]
    notes = [f"propensity: {propensity['note']}"] if propensity["note"] else []
    if support := propensity["support"]:
        notes.append(
            f"choices spread over {number(support['effective_candidates'], 1)} candidates in effect; the least likely "
            f"had {support['least']:.3g}, {percent(support['rare_ratio'])} % were below 1 %, "
            f"{percent(support['excluded_ratio'])} % of candidates could not be chosen"
        )
    return Grid("What the log says", columns, notes)


def _share(ratio: float) -> Cell:
    mark: Mark = "good" if ratio == 1 else "" if ratio > 0 else "bad"
    return Cell(percent(ratio), mark=mark)


def _rejects(summary: Mapping[str, Any]) -> Grid:
    rows = summary["rejects"]
    columns = [
        Column("reason", "", [Cell(row["reason"]) for row in rows], left=True),
        Column("rows", "", [Cell(number(row["rows"]), mark="bad") for row in rows]),
        Column("first at", "", [Cell(_place(row["first"][0])) for row in rows], left=True),
        Column("", "", [Cell(row["first"][0]["detail"]) for row in rows], left=True),
    ]
    return Grid("Rejected rows", columns, [f"`lodestar inspect {summary['dataset']} --rejects` shows each of them."])


def reject_tables(found: Mapping[str, Any]) -> RenderableType:
    """Draw refused rows one by one, each with its place, its reason and the start of its text.

    Args:
        found: what `rejected_rows` returns.
    """
    text = (
        Text()
        .append("Dataset ")
        .append(found["dataset"], style="bold")
        .append(f": {number(found['rows'])} rejected rows\n\n")
    )
    for row in found["rejects"]:
        text.append(f"{_place(row)}  ").append(row["reason"], style="red").append(f"  {row['detail']}\n")
        text.append(f"  {(row['raw'] or '')[:RAW_CHARACTERS]}\n", style="dim")
    if found["rows"] > len(found["rejects"]):
        text.append(f"and {number(found['rows'] - len(found['rejects']))} more: --limit\n")
    return text


def _place(reject: Mapping[str, Any]) -> str:
    return f"{PurePath(reject['file']).name} {reject['record'] or 'line ' + str(reject['line'])}"
