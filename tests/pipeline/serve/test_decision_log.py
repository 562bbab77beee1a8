"""The decision log: records as the schema has them, files set aside, and what is not written is counted."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from lodestar.data import schema as s
from lodestar.data.errors import ConfigError
from lodestar.data.formats.native import native_schema
from lodestar.pipeline.serve.decision_log import DecisionLog, record_of
from lodestar.pipeline.serve.outcome import Outcome
from lodestar.pipeline.serve.pending import Pending

FIELDS = len(s.SNAPSHOT_FIELDS)


def pending(name: str = "r", **changes: Any) -> Pending:
    snapshot = np.full((2, FIELDS), 0.5)
    snapshot[0, 3] = np.nan
    fields = {
        "request_id": name, "session_id": None, "decided_at_s": 1.7e9, "prompt_tokens": 10, "names": ("a", "b"),
        "kinds": ("A30", ""), "snapshot": np.zeros((2, FIELDS)), "told": snapshot, "score": np.array([5.0, np.inf]),
        "probability": np.array([1.0, 0.0]), "predicted_ms": None, "chosen": 0, "policy": "p", "version": "v",
        "brain": None,
    }  # fmt: skip
    return Pending(**{**fields, **changes})  # type: ignore[arg-type]


def outcome(**changes: Any) -> Outcome:
    return Outcome(**{"request_id": "r", "chosen": None, "ttft_ms": 9.0, "tpot_ms": math.nan, "e2e_ms": 20.0,
                      "output_tokens": 3} | changes)  # fmt: skip


def test_records_follow_the_schema() -> None:
    validator = jsonschema.Draft202012Validator(native_schema())
    for each in (
        record_of(pending(), outcome()),
        record_of(pending(session_id="s", score=None, probability=None, chosen=None, policy=None), None),
        record_of(pending(), outcome(status="timeout", ttft_ms=math.nan, output_tokens=-1)),
    ):
        validator.validate(json.loads(json.dumps(each, allow_nan=False)))


def test_a_record_says_what_is_known_and_nothing_else() -> None:
    record = record_of(pending(), outcome())
    assert record["outcome"] == {"ttft_ms": 9.0, "e2e_ms": 20.0, "status": "ok"}
    first, second = record["candidates"]
    assert "waiting_requests" not in first
    assert (first["gpu"], first["score"], first["probability"]) == ("A30", 5.0, 1.0)
    assert not {"gpu", "score"} & second.keys()
    assert (record["chosen"], record["policy"], record["model_version"]) == ("a", "p", "v")
    assert "outcome" not in record_of(pending(), None)


def test_a_choice_that_was_not_followed_has_no_probabilities() -> None:
    record = record_of(pending(), outcome(chosen="b"))
    assert (record["chosen"], record["policy"]) == ("b", None)
    assert all("probability" not in each for each in record["candidates"])


def test_a_file_is_set_aside_when_it_has_grown(tmp_path: Path) -> None:
    path, written, drops = tmp_path / "logs" / "d.jsonl", Counter[str](), Counter[str]()
    with pytest.raises(ConfigError, match="No such file or directory"):
        DecisionLog(path, 20_000, lambda n: None, lambda why: None)
    path.parent.mkdir()
    log = DecisionLog(path, 20_000, lambda n: written.update(all=n), lambda why: drops.update([why]))
    for k in range(500):
        log.put(pending(f"r{k}"), outcome())
    log.put(pending("unknown", prompt_tokens=0), None)
    log.close()
    files = sorted(path.parent.iterdir())
    assert len(files) > 3
    assert {file.name for file in files} > {"d.jsonl", "d-0001.jsonl"}
    names = [json.loads(line)["request"]["request_id"] for file in files for line in file.read_text().splitlines()]
    assert sorted(names) == sorted(f"r{k}" for k in range(500))
    assert (written["all"], dict(drops)) == (500, {"prompt tokens not known": 1})
    again = DecisionLog(path, 1e9, lambda n: None, lambda why: None)
    before = len(path.read_text().splitlines())
    again.put(pending("more"), None)
    again.close()
    assert len(path.read_text().splitlines()) == before + 1


def test_a_log_that_cannot_be_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="jsonl"):
        DecisionLog(tmp_path / "d.parquet", 1e9, lambda n: None, lambda why: None)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="expected a place"):
        DecisionLog(tmp_path / "file" / "d.jsonl", 1e9, lambda n: None, lambda why: None)


def test_a_full_disk_is_counted(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    (tmp_path / "d.jsonl").symlink_to("/dev/full")
    drops = Counter[str]()
    log = DecisionLog(tmp_path / "d.jsonl", 1e9, lambda n: None, lambda why: drops.update([why]))
    log.put(pending(), outcome())
    log.close()
    assert drops["cannot be written"] == 1
