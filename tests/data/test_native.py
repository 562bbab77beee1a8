from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import numpy as np
import polars as pl
import pytest

from lodestar.data.errors import ConfigError, DataError
from lodestar.data.formats.native import native_schema, write_decision_log
from lodestar.data.ingest import ingest
from lodestar.data.log import RequestLog
from lodestar.data.store import load_log, open_store
from lodestar.data.workspace import Workspace

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
GOOD = {
    "request": {"request_id": "1", "prompt_tokens": 10, "output_tokens": 3},
    "candidates": [
        {"instance": "a", "hit_ratio": 0.5, "probability": 0.25},
        {"instance": "b", "hit_ratio": 0.0, "probability": 0.75},
    ],
    "chosen": "a",
    "outcome": {"ttft_ms": 5.0, "tpot_ms": 1.0, "e2e_ms": 7.0, "status": "ok"},
}


def assert_same(one: RequestLog, other: RequestLog) -> None:
    for field in dataclasses.fields(RequestLog):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, dict):
            assert all(np.array_equal(a[name], b[name], equal_nan=True) for name in a), field.name
        elif isinstance(a, np.ndarray):
            assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), field.name
        elif field.name != "dataset":
            assert a == b, field.name


def round_trip(log: RequestLog, path: Path, workspace: Workspace) -> RequestLog:
    write_decision_log(path, log)
    ingest(workspace, [path], "back")
    with open_store(workspace) as con:
        return load_log(con, "back")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_written_log_reads_back_equal(
    suffix: str, made_log: Callable[..., RequestLog], workspace: Workspace, tmp_path: Path
) -> None:
    log = made_log()
    assert_same(log, round_trip(log, tmp_path / f"log{suffix}", workspace))


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_who_decided_each_request_reads_back(
    suffix: str, made_log: Callable[..., RequestLog], workspace: Workspace, tmp_path: Path
) -> None:
    log = made_log()
    logger = np.where(log.chosen < 0, -1, np.arange(len(log)) % 2)
    mixed = dataclasses.replace(log, policy=None, loggers=("jsq", "random"), logger=logger)
    assert_same(mixed, round_trip(mixed, tmp_path / f"log{suffix}", workspace))


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_real_log_reads_back_equal(
    suffix: str, real_log: Callable[[str], RequestLog], workspace: Workspace, tmp_path: Path
) -> None:
    log = real_log("sharing47-prefix")
    assert_same(log, round_trip(log, tmp_path / f"log{suffix}", workspace))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_log_gives_the_same_bytes(suffix: str, made_log: Callable[..., RequestLog], tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_decision_log(tmp_path / f"{name}{suffix}", made_log())
    assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


def test_the_schema_is_valid_and_every_written_record_satisfies_it(
    made_log: Callable[..., RequestLog], tmp_path: Path
) -> None:
    validator = jsonschema.Draft202012Validator(native_schema())
    validator.check_schema(native_schema())
    write_decision_log(tmp_path / "log.jsonl", made_log())
    for line in (tmp_path / "log.jsonl").read_text().splitlines():
        validator.validate(json.loads(line))


def changed(**changes: object) -> str:
    record = json.loads(json.dumps(GOOD))
    for path, value in changes.items():
        target, *keys = record, *path.split("__")
        for key in keys[:-1]:
            target = target[int(key) if key.isdigit() else key]
        if value is ...:
            del target[keys[-1]]
        else:
            target[keys[-1]] = value
    return json.dumps(record)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (changed(chosen="c"), "chosen-not-candidate: the chosen instance is not among the candidates"),
        (changed(candidates__0__probability=0.2), "probability-sum: the probabilities sum to 0.95, expected 1"),
        (changed(candidates__0__probability=None), "missing-key: probability is given for some candidates only"),
        (changed(outcome__ttft_ms=-1.0), "negative-latency: ttft_ms is -1, expected 0 or more"),
        (changed(candidates__1__hit_ratio=1.5), "unit-out-of-range: hit_ratio of candidate b is 1.5, expected 0 to 1"),
        (
            changed(candidates__0__kv_usage_ratio=87.0),
            "unit-out-of-range: kv_usage_ratio of candidate a is 87, expected 0 to 1",
        ),
        (
            changed(candidates__0__kv_usage_ratio=-0.5),
            "unit-out-of-range: kv_usage_ratio of candidate a is -0.5, expected 0 to 1",
        ),
        (changed(candidates__1__instance="a"), "candidate-twice: an instance is listed twice"),
        (changed(request__prompt_tokens=...), "missing-key: prompt_tokens is missing"),
        (changed(request__request_id=...), "missing-key: request.request_id is missing"),
        (changed(request__prompt_tokens=2.5), "wrong-type: prompt_tokens is 2.5, no whole number"),
        (changed(request__prompt_tokens="ten"), "wrong-type: request.prompt_tokens: 'ten' is not of type 'integer'"),
        (changed(request__prompt_tokens=True), "wrong-type: request.prompt_tokens: True is not of type 'integer'"),
        (changed(outcome__e2e_ms=[1]), "wrong-type: outcome.e2e_ms: [1] is not of type 'number', 'null'"),
        (
            changed(candidates__0__hit_ratio="x"),
            "wrong-type: candidates[0].hit_ratio: 'x' is not of type 'number', 'null'",
        ),
        (changed(chosen=7), "wrong-type: chosen: 7 is not of type 'string', 'null'"),
        (changed(request__block_ids=[1, 2.5]), "wrong-type: request.block_ids[1]: 2.5 is not of type 'integer'"),
        (changed(request__block_ids=[1]), "missing-key: request.block_ids are given without block_tokens"),
        (changed(outcome__status="lost"), "wrong-value: status is lost, expected ok, cancelled, timeout, error"),
        (changed(request=...), "missing-key: request.request_id is missing"),
        ("{", "bad-json: no JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("[1]", "wrong-type: record: [1] is not of type 'object'"),
    ],
)
def test_a_bad_record_is_rejected_with_a_reason_that_names_it(
    line: str, reason: str, workspace: Workspace, tmp_path: Path
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(f"{changed(request__request_id='0')}\n{line}\n")
    report = ingest(workspace, [path], "d")
    with open_store(workspace) as con:
        assert con.execute("SELECT line, reason || ': ' || detail, raw FROM rejects").fetchall() == [(2, reason, line)]
    assert (report.rows_read, report.rows_stored, report.rows_rejected) == (2, 1, 1)


def test_a_usage_a_hair_above_one_is_kept(workspace: Workspace, tmp_path: Path) -> None:
    line = changed(candidates__0__kv_usage_ratio=1 + 1e-9)
    jsonschema.Draft202012Validator(native_schema()).validate(json.loads(line))
    path = tmp_path / "log.jsonl"
    path.write_text(line)
    assert ingest(workspace, [path], "d").rows_rejected == 0


def test_the_schema_refuses_a_usage_in_percent() -> None:
    record = json.loads(changed(candidates__0__kv_usage_ratio=87.0))
    assert not jsonschema.Draft202012Validator(native_schema()).is_valid(record)


def test_a_rejected_parquet_row_keeps_its_content(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame([json.loads(changed()), json.loads(changed(outcome__e2e_ms=-3.0))]).write_parquet(path)
    ingest(workspace, [path], "d")
    with open_store(workspace) as con:
        line, reason, raw = con.execute("SELECT line, reason, raw FROM rejects").fetchall()[0]
    assert (line, reason) == (2, "negative-latency")
    assert json.loads(raw)["outcome"]["e2e_ms"] == -3.0


def test_parquet_of_something_else_is_one_line(workspace: Workspace, tmp_path: Path) -> None:
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(DataError, match="no column 'request'; found a"):
        ingest(workspace, [tmp_path / "x.parquet"], "d")


def test_latencies_of_failed_requests_are_not_loaded(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(changed() + "\n" + changed(request__request_id="2", outcome__status="error"))
    ingest(workspace, [path], "d")
    with open_store(workspace) as con:
        assert np.array_equal(load_log(con, "d").ttft_ms, [5.0, np.nan], equal_nan=True)


def test_an_unknown_suffix_lists_the_known(made_log: Callable[..., RequestLog], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected one of \.jsonl, "):
        write_decision_log(tmp_path / "log.csv", made_log())
    assert list(tmp_path.iterdir()) == []
