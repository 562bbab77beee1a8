"""A dataset out of the store, with all that hangs on it."""

from __future__ import annotations

from typing import Any

from lodestar.data.store import dataset_fingerprint, open_store
from lodestar.data.storing.repeats import remove_source
from lodestar.data.workspace import Workspace

__all__ = ["drop_dataset"]


def drop_dataset(workspace: Workspace, dataset: str) -> dict[str, Any]:
    """Remove a dataset, whole or not at all; models, replays and runs that were made of it stay.

    Raises:
        ConfigError: the store has no such dataset.
    """
    with open_store(workspace) as con:
        dataset_fingerprint(con, dataset)
        (requests,) = con.execute("SELECT count(*) FROM requests WHERE dataset = ?", [dataset]).fetchall()[0]
        sources = [
            name for (name,) in con.execute("SELECT source_id FROM sources WHERE dataset = ?", [dataset]).fetchall()
        ]
        con.execute("BEGIN")
        for name in sources:
            if con.execute("SELECT count(*) FROM sources WHERE source_id = ?", [name]).fetchall()[0][0]:
                remove_source(con, name)
        for table in ("instances", "datasets"):
            con.execute(f"DELETE FROM {table} WHERE dataset = ?", [dataset])
        con.execute("COMMIT")
    return {"dataset": dataset, "requests": requests, "sources": len(sources)}
