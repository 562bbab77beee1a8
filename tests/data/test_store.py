from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lodestar.data.errors import ConfigError
from lodestar.data.ingest import IngestReport, ingest
from lodestar.data.schema import TABLES
from lodestar.data.store import dataset_fingerprint, dataset_names, load_log, open_store
from lodestar.data.workspace import Workspace


def test_a_new_workspace_has_every_canonical_table_with_its_columns(workspace: Workspace) -> None:
    with open_store(workspace) as con:
        for table, columns in TABLES.items():
            assert [row[0] for row in con.execute(f"DESCRIBE {table}").fetchall()] == list(columns)


def test_an_unknown_dataset_lists_the_known(ingested: tuple[Workspace, dict[str, IngestReport]]) -> None:
    with open_store(ingested[0]) as con, pytest.raises(ConfigError, match=r"did you mean 'sharing09-random'\?"):
        load_log(con, "sharing9-random")


def test_datasets_are_listed_by_name(ingested: tuple[Workspace, dict[str, IngestReport]]) -> None:
    with open_store(ingested[0]) as con:
        assert dataset_names(con) == sorted(ingested[1])
        assert len({dataset_fingerprint(con, name) for name in ingested[1]}) == len(ingested[1])


def test_a_file_that_is_no_database_is_one_line(workspace: Workspace) -> None:
    Path(workspace.database).write_bytes(b"not a database" * 1000)
    with (
        pytest.raises(ConfigError, match=r"lodestar\.duckdb cannot be opened .*expected a DuckDB file"),
        open_store(workspace),
    ):
        pass


def test_conversations_are_numbered_as_they_begin(workspace: Workspace, tmp_path: Path) -> None:
    """By arrival, whatever the order of the lines: b, then one request without a conversation, then a, then b."""
    named = {3.0: "b", 1.0: None, 2.0: "a", 0.0: "b"}
    lines = [
        {"request": {"request_id": str(at_s), "session_id": name, "arrived_at_s": at_s, "prompt_tokens": 10}}
        for at_s, name in named.items()
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    ingest(workspace, [tmp_path / "log.jsonl"], "d")
    with open_store(workspace) as con:
        session = load_log(con, "d").session
    assert session is not None
    assert session.tolist() == [0, -1, 1, 0]


def test_a_request_that_was_cut_off_keeps_what_was_measured_until_then(workspace: Workspace, tmp_path: Path) -> None:
    outcomes = [
        {"ttft_ms": 50.0, "e2e_ms": 900.0, "status": "ok"},
        {"e2e_ms": 400.0, "status": "timeout"},
        {"ttft_ms": 60.0, "e2e_ms": 300.0, "status": "cancelled"},
        {"e2e_ms": 5.0, "status": "error"},
    ]
    lines = [
        {"request": {"request_id": str(i), "arrived_at_s": float(i), "prompt_tokens": 10}, "outcome": told}
        for i, told in enumerate(outcomes)
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ingest(workspace, [tmp_path / "log.jsonl"], "cut")
    with open_store(workspace) as con:
        log = load_log(con, "cut")
    np.testing.assert_array_equal(log.ttft_ms, [50.0, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(log.e2e_ms, [900.0, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(log.cut_off["ttft_ms"], [np.nan, np.nan, 60.0, np.nan])
    np.testing.assert_array_equal(log.cut_off["e2e_ms"], [np.nan, 400.0, 300.0, np.nan])
