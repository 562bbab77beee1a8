"""The rows of a dataset that were refused: counted by reason, or one by one."""

from __future__ import annotations

from typing import Any, Final

import duckdb

from lodestar.data.store import dataset_fingerprint, open_store
from lodestar.data.workspace import Workspace

__all__ = ["rejected_rows", "rejects_by_reason"]

SHOWN: Final = 3
RAW_CHARACTERS: Final = 200


def rejects_by_reason(con: duckdb.DuckDBPyConnection, dataset: str) -> list[dict[str, Any]]:
    """Count the refused rows of each reason, most first, with the first few of them."""
    reasons = con.execute(
        "SELECT reason, count(*) FROM rejects WHERE dataset = ? GROUP BY reason ORDER BY 2 DESC, 1", [dataset]
    ).fetchall()
    first = con.execute(
        """SELECT reason, "file", line, record, detail, raw[:?] FROM rejects WHERE dataset = ?
        QUALIFY row_number() OVER (PARTITION BY reason ORDER BY "file", line, record) <= ?
        ORDER BY "file", line, record""",
        [RAW_CHARACTERS, dataset, SHOWN],
    ).fetchall()
    names = ("file", "line", "record", "detail", "raw")
    return [
        {
            "reason": reason,
            "rows": rows,
            "first": [dict(zip(names, told, strict=True)) for why, *told in first if why == reason],
        }
        for reason, rows in reasons
    ]


def rejected_rows(workspace: Workspace, dataset: str, limit: int, reason: str | None = None) -> dict[str, Any]:
    """Return the refused rows one by one, in the order of files and lines, each with its whole text."""
    with open_store(workspace) as con:
        dataset_fingerprint(con, dataset)
        of = "FROM rejects WHERE dataset = ? AND (? IS NULL OR reason = ?)"
        (rows,) = con.execute(f"SELECT count(*) {of}", [dataset, reason, reason]).fetchall()[0]
        found = con.execute(
            f'SELECT "file", line, record, reason, detail, raw {of} ORDER BY "file", line, record LIMIT ?',
            [dataset, reason, reason, limit],
        ).fetchall()
    names = ("file", "line", "record", "reason", "detail", "raw")
    return {"dataset": dataset, "rows": rows, "rejects": [dict(zip(names, row, strict=True)) for row in found]}
