from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lodestar.data.errors import ConfigError, DataError
from lodestar.data.formats.native import write_decision_log
from lodestar.data.ingest import ingest
from lodestar.data.log import RequestLog
from lodestar.data.schema import TABLES
from lodestar.data.store import dataset_fingerprint, load_log, open_store
from lodestar.data.storing.drop import drop_dataset
from lodestar.data.workspace import Workspace

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
FIRST = AZURE + "2024-05-10 00:00:01,10,1\n2024-05-10 00:00:05,11,2\n"
SECOND = AZURE + "2024-05-10 00:00:00,12,3\n2024-05-10 00:00:03,13,4\n"
KLOG_HEAD = 20

SLOW_INGEST = """
import sys, time
from pathlib import Path
from lodestar.data.ingest import ingest
from lodestar.data.workspace import Workspace

def stall(rows):
    print("stored, not committed", flush=True)
    time.sleep(60)

ingest(Workspace.open(Path(sys.argv[1])), [Path(sys.argv[2])], sys.argv[3], progress=stall)
"""


def counts(workspace: Workspace) -> dict[str, int]:
    with open_store(workspace) as con:
        return {table: con.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0] for table in TABLES}


def files(folder: Path, **texts: str) -> list[Path]:
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [folder / name for name in texts]


def load(workspace: Workspace, dataset: str) -> RequestLog:
    with open_store(workspace) as con:
        return load_log(con, dataset)


def test_the_same_file_twice_adds_nothing_and_says_so(workspace: Workspace, tmp_path: Path) -> None:
    (path,) = files(tmp_path, a=FIRST)
    ingest(workspace, [path], "d")
    before = counts(workspace)
    again = ingest(workspace, [path], "d")
    assert again.sources[0].already_stored
    assert again.rows_read == again.rows_stored == again.rows_rejected == 0
    assert counts(workspace) == before


def test_the_same_file_may_be_in_two_datasets(workspace: Workspace, tmp_path: Path) -> None:
    (path,) = files(tmp_path, a=FIRST)
    assert [ingest(workspace, [path], name).rows_stored for name in ("one", "two")] == [2, 2]


def test_requests_of_two_files_are_ordered_by_arrival_whatever_the_order_of_the_files(tmp_path: Path) -> None:
    paths = files(tmp_path, a=FIRST, b=SECOND)
    logs = []
    for name, order in (("one", paths), ("two", paths[::-1])):
        workspace = Workspace.open(tmp_path / name)
        ingest(workspace, order, "d")
        with open_store(workspace) as con:
            logs.append((load_log(con, "d"), dataset_fingerprint(con, "d")))
    (one, key), (two, other_key) = logs
    assert one.prompt_tokens.tolist() == two.prompt_tokens.tolist() == [12, 10, 13, 11]
    assert one.arrived_at_s.tolist() == two.arrived_at_s.tolist() == [0, 1, 3, 5]
    assert one.request_id == two.request_id
    assert key == other_key


def test_a_file_with_new_instances_renumbers_those_before(traces: Path, workspace: Workspace, tmp_path: Path) -> None:
    lines = (traces / "lodestar" / "gateway-2026-04.klog").read_text().splitlines()
    renamed = lines[4].replace("10.0.169.50", "10.0.0.1").replace("requestID@5", "requestID@6")
    ingest(workspace, files(tmp_path, a="\n".join(lines), b=renamed), "d")
    log = load(workspace, "d")
    assert log.instances[0] == "10.0.0.1"
    by_id = dict(zip(log.request_id, [log.instances[j] for j in log.chosen], strict=True))
    assert by_id["5"] == "10.0.169.50"
    assert by_id["6"] == "10.0.0.1"
    assert log.candidate.sum(axis=1).tolist() == [7] * 6


def test_a_request_id_of_an_earlier_file_is_rejected(traces: Path, workspace: Workspace, tmp_path: Path) -> None:
    lines = (traces / "lodestar" / "gateway-2026-04.klog").read_text().splitlines()
    report = ingest(workspace, files(tmp_path, a="\n".join(lines[:3]), b="\n".join(lines[2:])), "d")
    assert [(source.rows_stored, source.rows_rejected) for source in report.sources] == [(3, 0), (2, 1)]


def test_files_of_two_clocks_do_not_mix(traces: Path, workspace: Workspace, tmp_path: Path) -> None:
    ingest(workspace, files(tmp_path, a=FIRST), "d")
    with pytest.raises(DataError, match="arrivals by clock 'unix', this file by 'lodestar-klog'"):
        ingest(workspace, [traces / "lodestar" / "gateway-2026-04.klog"], "d")
    assert counts(workspace)["requests"] == 2


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress, bytes])
def test_compression_is_told_by_content(pack: Callable[[bytes], bytes], workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(pack(FIRST.encode()))
    assert ingest(workspace, [tmp_path / "log"], "d").rows_stored == 2


def test_a_damaged_compressed_file_is_one_line(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "log.gz").write_bytes(gzip.compress(FIRST.encode())[:-12])
    with pytest.raises(DataError, match=r"log\.gz: damaged compressed file"):
        ingest(workspace, [tmp_path / "log.gz"], "d")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.mkdir(), "an empty directory"),
        (lambda path: path.write_text(""), "is empty"),
        (lambda path: path.write_text(AZURE), "no rows"),
    ],
)
def test_a_path_without_a_log_is_one_line(
    make: Callable[[Path], object], message: str, workspace: Workspace, tmp_path: Path
) -> None:
    make(tmp_path / "log")
    with pytest.raises(DataError, match=message):
        ingest(workspace, [tmp_path / "log"], "d")


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b"])
def test_a_dataset_name_that_is_no_file_name_is_refused(name: str, workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no usable name"):
        ingest(workspace, files(tmp_path, a=FIRST), name)


def test_random_as_logging_policy_gives_every_candidate_the_same_chance(traces: Path, workspace: Workspace) -> None:
    path = traces / "lodestar" / "gateway-2026-04.klog"
    ingest(workspace, [path], "uniform", logging_policy="random")
    ingest(workspace, [path], "named", logging_policy="prefix")
    assert load(workspace, "uniform").policy == "random"
    assert load(workspace, "uniform").propensity.tolist() == [1 / 7] * 5
    assert load(workspace, "named").policy == "prefix"
    assert np.isnan(load(workspace, "named").propensity).all()


def test_a_logging_policy_that_contradicts_the_log_is_refused(
    made_log: Callable[..., RequestLog], workspace: Workspace, tmp_path: Path
) -> None:
    write_decision_log(tmp_path / "log.jsonl", made_log())
    with pytest.raises(ConfigError, match="'random' contradicts the log, which says 'soft'"):
        ingest(workspace, [tmp_path / "log.jsonl"], "d", logging_policy="random")


@pytest.mark.parametrize("before", [False, True])
def test_a_killed_ingest_leaves_nothing_half_done(before: bool, traces: Path, workspace: Workspace) -> None:
    klog, csv = traces / "lodestar" / "gateway-2026-04.klog", traces / "lodestar" / "sharing09" / "rl.csv.gz"
    if before:
        ingest(workspace, [klog], "kept")
    was = counts(workspace)
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_INGEST, str(workspace.home), str(csv), "killed"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "stored, not committed\n"
    with pytest.raises(ConfigError, match="is open in another process"):
        counts(workspace)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert counts(workspace) == was
    assert ingest(workspace, [csv], "killed").rows_stored == 2492


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_rows_read_are_rows_stored_plus_rejects(data: st.DataObject, traces: Path, tmp_path: Path) -> None:
    name = data.draw(st.sampled_from(["sharing47/random.csv.gz", "sharing09/rl.klog.gz"]))
    lines = gzip.decompress((traces / "lodestar" / name).read_bytes()).splitlines()[: KLOG_HEAD + 1]
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(1, len(lines) - 1))
        start = data.draw(st.integers(0, len(lines[at])))
        junk = data.draw(st.binary(max_size=6).filter(lambda junk: b"\n" not in junk and b"\r" not in junk))
        lines[at] = lines[at][:start] + junk + lines[at][start + data.draw(st.integers(0, 40)) :]
    path = tmp_path / "log"
    path.write_bytes(b"\n".join(lines))
    workspace = Workspace.open(tmp_path / f"home-{time.monotonic_ns()}")
    report = ingest(workspace, [path], "d")
    assert report.rows_read == report.rows_stored + report.rows_rejected
    stored = counts(workspace)
    assert stored["requests"] == len(load(workspace, "d")) == report.rows_stored
    assert stored["rejects"] == report.rows_rejected


def test_progress_is_told_the_rows_of_each_file(workspace: Workspace, tmp_path: Path) -> None:
    told: list[int] = []
    report = ingest(workspace, files(tmp_path, a=FIRST, b=SECOND), "d", progress=told.append)
    assert told == [2, 2]
    assert report.to_dict()["rows_stored"] == 4


def test_a_corrected_file_replaces_its_earlier_version(workspace: Workspace, tmp_path: Path) -> None:
    (path,) = files(tmp_path, a=FIRST + "broken\n")
    assert ingest(workspace, [path], "d").rows_rejected == 1
    path.write_text(FIRST + "2024-05-10 00:00:09,12,3\n")
    report = ingest(workspace, [path], "d")
    assert report.sources[0].replaced is not None
    assert (counts(workspace)["requests"], counts(workspace)["rejects"], counts(workspace)["sources"]) == (3, 0, 1)


def test_a_log_that_goes_on_where_another_ended_stands_beside_it(workspace: Workspace, tmp_path: Path) -> None:
    one, two = files(tmp_path, a=FIRST + "2024-05-10 00:00:09,7,7\n", b=AZURE + "2024-05-10 00:00:09,7,7\n")
    ingest(workspace, [one], "d")
    assert ingest(workspace, [two], "d").sources[0].replaced is None
    assert counts(workspace)["requests"] == 4


def test_an_attempt_that_stored_nothing_goes_when_the_file_is_read_again(workspace: Workspace, tmp_path: Path) -> None:
    (path,) = files(tmp_path, a=AZURE + "broken\nworse\n")
    ingest(workspace, [path], "d")
    path.write_text(FIRST)
    ingest(workspace, [path], "d")
    assert (counts(workspace)["rejects"], counts(workspace)["sources"]) == (0, 1)


def test_a_dropped_dataset_leaves_nothing_and_touches_no_other(traces: Path, workspace: Workspace) -> None:
    klog = traces / "lodestar" / "gateway-2026-04.klog"
    ingest(workspace, [klog], "kept")
    before = counts(workspace)
    ingest(workspace, [traces / "aibrix" / "prefix-cache"], "gone")
    drop_dataset(workspace, "gone")
    assert counts(workspace) == before
    with pytest.raises(ConfigError, match="dataset 'gone' is not known"):
        drop_dataset(workspace, "gone")


def test_strict_fails_on_the_first_refused_row_and_keeps_nothing(workspace: Workspace, tmp_path: Path) -> None:
    (path,) = files(tmp_path, a=FIRST + "broken\n")
    with pytest.raises(DataError, match=r"a, line 4: field-count, expected 3 fields, found 1; .*--strict"):
        ingest(workspace, [path], "d", strict=True)
    assert counts(workspace)["sources"] == 0
