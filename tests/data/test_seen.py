from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np

from lodestar.data.ingest import ingest
from lodestar.data.seen import Seen, names_of, news_since, seen_now
from lodestar.data.store import load_log, open_store
from lodestar.data.workspace import Workspace

LONGEST_S = 5.0


def write(path: Path, numbers: range, gap_s: float = 1.0, timed: bool = True) -> Path:
    lines = [
        {
            "request": {"request_id": f"r{i}", "prompt_tokens": 100 + i}
            | ({"arrived_at_s": 1.7e9 + i * gap_s} if timed else {}),
            "candidates": [{"instance": "a", "inflight_requests": i}],
            "chosen": "a",
            "outcome": {"ttft_ms": 50.0, "status": "ok"},
        }
        for i in numbers
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def now(con: duckdb.DuckDBPyConnection) -> Seen:
    return seen_now(con, "d", LONGEST_S)


def test_a_later_file_is_new_and_is_read_with_what_was_open(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "home")
    ingest(workspace, [write(tmp_path / "a.jsonl", range(40))], "d")
    with open_store(workspace) as con:
        seen = Seen.from_dict(json.loads(json.dumps(now(con).to_dict())))
        assert not len(news_since(con, "d", seen).new)
    ingest(workspace, [write(tmp_path / "b.jsonl", range(40, 50))], "d")
    with open_store(workspace) as con:
        news = news_since(con, "d", seen)
        assert news.broken is None
        assert names_of(con, news.new) == [f"r{i}" for i in range(40, 50)]
        tail, whole = load_log(con, "d", news.context), load_log(con, "d")
        assert not len(news_since(con, "d", now(con)).new)
    assert set(tail.request_id) >= {f"r{i}" for i in range(35, 50)}
    assert np.array_equal(tail.arrived_at_s, whole.arrived_at_s[-len(tail) :])
    assert np.array_equal(tail.snapshot["inflight_requests"], whole.snapshot["inflight_requests"][-len(tail) :])


def test_of_many_requests_a_few_are_read(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "home")
    ingest(workspace, [write(tmp_path / "a.jsonl", range(2100))], "d")
    with open_store(workspace) as con:
        seen = now(con)
    ingest(workspace, [write(tmp_path / "b.jsonl", range(2100, 2110))], "d")
    with open_store(workspace) as con:
        assert len(news_since(con, "d", seen).context) == 2000 + 5 + 10


def test_of_a_file_that_has_grown_the_later_lines_are_new(tmp_path: Path) -> None:
    workspace, file = Workspace.open(tmp_path / "home"), tmp_path / "a.jsonl"
    ingest(workspace, [write(file, range(40))], "d")
    with open_store(workspace) as con:
        seen = now(con)
    ingest(workspace, [write(file, range(50))], "d")
    with open_store(workspace) as con:
        news = news_since(con, "d", seen)
        assert news.broken is None
        assert names_of(con, news.new) == [f"r{i}" for i in range(40, 50)]


def test_a_file_that_was_written_anew_is_no_continuation(tmp_path: Path) -> None:
    workspace, file = Workspace.open(tmp_path / "home"), tmp_path / "a.jsonl"
    ingest(workspace, [write(file, range(40))], "d")
    with open_store(workspace) as con:
        seen = now(con)
    ingest(workspace, [write(file, range(5, 60))], "d")
    with open_store(workspace) as con:
        broken = news_since(con, "d", seen).broken
    assert broken is not None
    assert "does not begin with the same requests" in broken


def test_a_request_that_finished_late_is_new_but_an_older_log_is_no_continuation(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "home")
    ingest(workspace, [write(tmp_path / "a.jsonl", range(100, 140))], "d")
    with open_store(workspace) as con:
        seen = now(con)
    late = write(tmp_path / "late.jsonl", range(1360, 1440, 2), gap_s=0.1)  # from 3 s before the last seen on
    late.write_text(late.read_text(encoding="utf-8").replace('"r1', '"late1'), encoding="utf-8")
    ingest(workspace, [late], "d")
    with open_store(workspace) as con:
        news, seen = news_since(con, "d", seen), now(con)
        assert news.broken is None
        assert len(news.new) == 40
    ingest(workspace, [write(tmp_path / "old.jsonl", range(50))], "d")
    with open_store(workspace) as con:
        broken = news_since(con, "d", seen).broken
    assert broken is not None
    assert "new requests came before the seen ones" in broken


def test_without_arrivals_later_files_follow(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "home")
    ingest(workspace, [write(tmp_path / "a.jsonl", range(40), timed=False)], "d")
    with open_store(workspace) as con:
        seen = now(con)
    ingest(workspace, [write(tmp_path / "b.jsonl", range(40, 50), timed=False)], "d")
    with open_store(workspace) as con:
        news = news_since(con, "d", seen)
        names = [f"r{i}" for i in range(40, 50)]
        assert names_of(con, news.new) == load_log(con, "d", news.context).request_id == names


def test_outcomes_that_come_later_are_counted(tmp_path: Path) -> None:
    workspace, file = Workspace.open(tmp_path / "home"), write(tmp_path / "a.jsonl", range(40))
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for line in lines[30:]:
        del line["outcome"]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    ingest(workspace, [file], "d")
    with open_store(workspace) as con:
        seen = now(con)
        assert not news_since(con, "d", seen).notes
    ingest(workspace, [write(file, range(50))], "d")
    with open_store(workspace) as con:
        news = news_since(con, "d", seen)
        assert len(news.new) == 10
        assert news.notes["late outcomes"].startswith("10 requests")
        assert not news_since(con, "d", now(con)).notes


def test_times_that_moved_are_no_continuation_and_that_is_the_reason(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "home")
    ingest(workspace, [write(tmp_path / "a.jsonl", range(40))], "d")
    with open_store(workspace) as con:
        seen = replace(now(con), clock_start_s=1.6e9)
    ingest(workspace, [write(tmp_path / "b.jsonl", range(40, 50))], "d")
    with open_store(workspace) as con:
        broken = news_since(con, "d", seen).broken
    assert broken is not None
    assert "first arrival was at 1600000000.0 s of the log's clock and is at 1700000000.0 s now" in broken
