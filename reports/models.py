"""The versions of a dataset's models in the terminal: what is in use, and what the promotion gate said of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from lodestar.models.registry.gate_evidence import CHAMPION as RIVAL_CHAMPION
from lodestar.models.registry.gate_evidence import LINEAR
from lodestar.models.registry.version_index import Index, challengers, times
from lodestar.reports.grids import Cell, Column, Grid, Mark
from lodestar.reports.numbers import MISSING, decimals, number, percent
from lodestar.reports.tables import grid_table, sentences

__all__ = ["change_text", "checks_grid", "model_rows", "models_tables", "version_tables", "versions_grid"]

_WORDS: Final = {True: "passed", False: "failed", None: "not judged"}
_MARKS: Final[dict[bool | None, Mark]] = {True: "good", False: "bad", None: ""}


def model_rows(dataset: str, index: Index) -> list[dict[str, Any]]:
    """Return one row for each target of each version, the newest version first, ready for JSON."""
    aliases = {"champion": index.champions, "challenger": challengers(index)}
    return [
        {
            "dataset": dataset,
            "version": entry["version"],
            "target": target,
            "created_at": entry["created_at"],
            "aliases": [alias for alias, of in aliases.items() if of.get(target) == entry["version"]],
            "in_use": times(index, entry["version"], target),
        }
        | about
        for entry in reversed(index.versions)
        for target, about in entry["targets"].items()
    ]


def models_tables(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Draw one table a dataset.

    Args:
        rows: of `model_rows`, those of a dataset together.
    """
    if not rows:
        return Text("no models yet. Run: lodestar train DATASET")
    datasets = dict.fromkeys(row["dataset"] for row in rows)
    return Group(*(grid_table(versions_grid([row for row in rows if row["dataset"] == name])) for name in datasets))


def versions_grid(rows: Sequence[Mapping[str, Any]]) -> Grid:
    """Return one line a version and target, with the numbers that decided."""
    dataset = rows[0]["dataset"]
    unused = sorted({row["target"] for row in rows} - {row["target"] for row in rows if "champion" in row["aliases"]})
    columns = [
        Column("version", "", [Cell(row["version"], "\n".join(row["aliases"])) for row in rows], left=True),
        Column("target", "", [Cell(_name(row["target"])) for row in rows], left=True),
        Column(
            "fitted", "UTC", [Cell(*row["created_at"].removesuffix("+00:00").split("T")) for row in rows], left=True
        ),
        Column("verdict", "", [_verdict(row) for row in rows], left=True),
        _gains("over champion", RIVAL_CHAMPION, rows),
        _gains("over linear", LINEAR, rows),
        Column("P90 covers", "%", [_coverage(row) for row in rows]),
    ]
    notes = [
        "Over: mean absolute error less than the champion's and linear regression's, with its 95 % interval.",
        f"Whole verdicts: lodestar models show {dataset} VERSION.",
    ]
    warnings = [
        f"No {_name(target)} model is in use: none passed the gate. "
        f"To use the newest all the same: lodestar models promote {dataset}"
        for target in unused
    ]
    return Grid(f"Models of {dataset}", columns, notes, warnings)


def version_tables(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Draw all that is known of one version.

    Args:
        rows: of `model_rows`, those of the version.
    """
    parts: list[RenderableType] = []
    for row in rows:
        verdict = row.get("verdict") or {}
        parts.append(sentences(f"{_name(row['target'])} of {row['dataset']}, version {row['version']}", _facts(row)))
        if verdict.get("checks"):
            parts.append(grid_table(checks_grid(verdict)))
    return Group(*parts)


def checks_grid(verdict: Mapping[str, Any]) -> Grid:
    """Return one line a check: the number, its interval, what was asked for, and whether it was met.

    Args:
        verdict: ``Verdict.to_dict()``.
    """
    checks = verdict["checks"]
    columns = [
        Column("check", "", [Cell(check["name"]) for check in checks], left=True),
        Column("", "", [Cell(_WORDS[check["passed"]], mark=_MARKS[check["passed"]]) for check in checks], left=True),
        Column("rows", "", [Cell(number(check["rows"] or None)) for check in checks]),
        Column("found", "", [_found(check) for check in checks], left=True),
    ]
    word = "promoted" if verdict["promoted"] else "refused"
    return Grid(f"The gate: {word}, on the newest {number(verdict['rows'])} requests", columns)


def change_text(dataset: str, before: Mapping[str, str], after: Mapping[str, str], why: str) -> Text:
    """Say which champions changed.

    >>> print(change_text("d", {"ttft_ms": "b"}, {"ttft_ms": "a"}, "rolled back"))
    d rolled back: TTFT b → a
    """
    changes = [
        f"{_name(target)} {before.get(target, 'none')} → {after.get(target, 'none')}"
        for target in dict.fromkeys([*before, *after])
        if before.get(target) != after.get(target)
    ]
    return Text(f"{dataset} {why}: {', '.join(changes)}")


def _facts(row: Mapping[str, Any]) -> dict[str, str]:
    verdict = row.get("verdict") or {}
    used = [f"{span['from']} to {span['to'] or 'now'}, {span['why']}" for span in row["in_use"]]
    facts = {
        "fitted": f"{row['created_at']}, {row.get('mode', 'by hand')}: {row.get('reason', MISSING)}",
        "alias": ", ".join(row["aliases"]) or "none",
        "in use": "; ".join(used) or "never",
        "verdict": verdict.get("reason", "none: it was not judged"),
        "trees": number(row["trees"]),
        "requests seen": number(row.get("requests_seen")),
        "dataset": row.get("data_fingerprint", MISSING),
    }
    if "registered_model" in row:
        facts["MLflow"] = f"{row['registered_model']} version {row['registered_version']}, run {row['run_id']}"
    return facts


def _verdict(row: Mapping[str, Any]) -> Cell:
    verdict = row.get("verdict")
    if verdict is None:
        return Cell("none")
    failed = [check["name"] for check in verdict["checks"] if check["passed"] is False]
    word = "promoted" if verdict["promoted"] else "refused" if verdict["checks"] else "not judged"
    return Cell(word, "\n".join(failed), "good" if verdict["promoted"] else "bad")


def _gains(title: str, rival: str, rows: Sequence[Mapping[str, Any]]) -> Column:
    checks = [_check(row, rival) for row in rows]
    return Column(title, "ms", [_gain(check) for check in checks])


def _gain(check: Mapping[str, Any] | None) -> Cell:
    if check is None or check["value"] is None:
        return Cell(MISSING)
    places = decimals([check["value"], check["low"], check["high"]], figures=3)
    low, high = (number(check[bound], places, signed=True) for bound in ("low", "high"))
    return Cell(number(check["value"], places, signed=True), f"{low} to\n{high}", _MARKS[check["passed"]])


def _coverage(row: Mapping[str, Any]) -> Cell:
    check = _check(row, "coverage")
    return Cell(MISSING) if check is None else Cell(percent(check["value"]), mark=_MARKS[check["passed"]])


def _check(row: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    checks = (row.get("verdict") or {}).get("checks", ())
    return next((check for check in checks if check["name"] == name), None)


def _found(check: Mapping[str, Any]) -> Cell:
    return Cell(check["said"])


def _name(target: str) -> str:
    return target.removesuffix("_ms").upper()
