from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lodestar.data.errors import ConfigError, DataError
from lodestar.data.formats import formats
from lodestar.data.ingest import IngestReport, ingest
from lodestar.data.log import RequestLog
from lodestar.data.store import load_log, open_store
from lodestar.data.workspace import Workspace

# Rows in the real files, as their README counts them.
ROWS = {
    "sharing09-random": 2491,
    "sharing09-prefix": 2490,
    "sharing09-rl": 2492,
    "sharing47-random": 2313,
    "sharing47-prefix": 2314,
    "sharing47-rl": 2313,
    "klog-prefix": 2490,
    "klog-rl": 2492,
    "klog-2026": 5,
    "mooncake": 12031,
    "azure": 19366,
}
CSV_HEAD = "request_id,selected_pod,input_tokens,output_tokens,total_tokens,ttft,avg_tpot,e2e_latency"


def csv_log(*rows: str) -> bytes:
    pods = ",".join(f"{pod}-{field}" for pod in ("a", "b-1") for field in ("kv_hit_ratio", "inflight_requests"))
    return "\n".join([f"{CSV_HEAD},{pods}", *rows]).encode()


def load(workspace: Workspace, name: str) -> RequestLog:
    with open_store(workspace) as con:
        return load_log(con, name)


@pytest.mark.parametrize(("name", "rows"), ROWS.items())
def test_every_row_of_a_real_log_is_read(
    name: str, rows: int, ingested: tuple[Workspace, dict[str, IngestReport]]
) -> None:
    report = ingested[1][name]
    assert report.rows_read == rows
    assert report.rows_rejected == (2 if name == "sharing47-random" else 0)


@pytest.mark.parametrize(
    ("name", "mean", "p99"),
    [("sharing09-random", 2731, 12337), ("sharing09-prefix", 2101, 6843), ("sharing09-rl", 1316, 4082)],
)
def test_latencies_are_those_that_the_authors_measured(
    name: str, mean: int, p99: int, real_log: Callable[[str], RequestLog]
) -> None:
    log = real_log(name)
    assert log.ttft_ms.mean() == pytest.approx(mean, abs=1)
    assert np.quantile(log.ttft_ms, 0.99) == pytest.approx(p99, abs=5)


def test_csv_and_klog_of_the_same_arm_agree(real_log: Callable[[str], RequestLog]) -> None:
    csv, klog = real_log("sharing09-rl"), real_log("klog-rl")
    order = np.argsort(np.array(klog.request_id, dtype=np.int64))
    assert np.array_equal(np.array(klog.request_id)[order], np.array(csv.request_id))
    assert np.array_equal(klog.ttft_ms[order], csv.ttft_ms)
    assert np.array_equal(
        klog.snapshot["running_requests"][order].sum(axis=1), csv.snapshot["running_requests"].sum(axis=1)
    )


def test_newer_klog_counts_are_without_the_request_itself(real_log: Callable[[str], RequestLog]) -> None:
    log = real_log("klog-2026")
    row, pod = log.request_id.index("4"), log.instances.index("10.0.169.92")
    assert log.chosen[row] == pod
    assert log.snapshot["inflight_prefill_requests"][row, pod] == 2
    assert log.snapshot["prefill_tokens"][row, pod] == 6803 - 2340
    assert log.snapshot["last_access_age_s"][row, log.instances.index("10.0.169.91")] == pytest.approx(0.202731)
    assert np.isnan(log.tpot_ms).all()


def test_klog_rows_follow_the_start_of_the_requests(real_log: Callable[[str], RequestLog]) -> None:
    log = real_log("klog-2026")
    assert log.request_id == ["0", "2", "3", "4", "5"]
    assert log.arrived_at_s[0] == 0


def test_mooncake_blocks_are_512_tokens(real_log: Callable[[str], RequestLog]) -> None:
    log = real_log("mooncake")
    assert log.block_tokens == 512
    assert np.array_equal(np.diff(log.block_offsets), -(-log.prompt_tokens // 512))


def test_azure_times_start_at_the_first_arrival(real_log: Callable[[str], RequestLog]) -> None:
    assert real_log("azure").arrived_at_s[:3].tolist() == [0.0, 4.314579, 4.541877]


def test_azure_times_with_a_zone_are_read(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2024-05-10 00:00:00.009930+00:00,10,1\n2024-05-10 02:00:01+02:00,11,1\n2024-05-10T00:00:02Z,12,1\n"
    )
    ingest(workspace, [path], "zoned")
    assert load(workspace, "zoned").arrived_at_s.round(6).tolist() == [0.0, 0.99007, 1.99007]


def test_csv_rows_follow_the_request_id_and_hits_are_ratios(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(csv_log("10,b-1,100,5,105,20,3,40,50,0,0,2", "9,a,100,5,105,20,3,40,0,1,25,0"))
    ingest(workspace, [path], "two")
    log = load(workspace, "two")
    assert log.request_id == ["9", "10"]
    assert log.instances == ["a", "b-1"]
    assert log.snapshot["hit_ratio"].tolist() == [[0.0, 0.25], [0.5, 0.0]]
    assert log.chosen.tolist() == [0, 1]


def test_a_csv_with_hit_ratios_where_percent_is_due_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(csv_log("0,a,100,5,105,20,3,40,0.62,0,0,0", "1,a,100,5,105,20,3,40,1,0,0,0"))
    with pytest.raises(DataError, match=r"kv_hit_ratio: .*0\.62.*expected percent, 0–100.*Multiply") as caught:
        ingest(workspace, [path], "d")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("hits", [("0", "0"), ("1", "1"), ("0.5", "62.5")])
def test_a_csv_with_small_percentages_is_read(hits: tuple[str, str], workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(csv_log(f"0,a,100,5,105,20,3,40,{hits[0]},0,{hits[1]},0"))
    ingest(workspace, [path], "d")
    assert load(workspace, "d").snapshot["hit_ratio"].tolist() == [[float(hit) / 100 for hit in hits]]


def test_a_klog_with_hit_ratios_where_percent_is_due_is_refused(
    traces: Path, workspace: Workspace, tmp_path: Path
) -> None:
    text = (traces / "lodestar" / "gateway-2026-04.klog").read_text()
    maps = re.compile(r"(?<=@allPodsKvCacheHitRatios@)[^@]*")
    path = tmp_path / "x.klog"
    path.write_text(maps.sub(lambda found: re.sub(r":[0-9.]+", ":0.87", found[0]), text))
    with pytest.raises(DataError, match=r"allPodsKvCacheHitRatios: .*0\.87.*expected percent, 0–100"):
        ingest(workspace, [path], "d")


def test_a_usage_in_percent_is_rejected(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    head, row = f"{CSV_HEAD},a-kv_hit_ratio,a-gpu_kv_cache", "a,100,5,105,20,3,40,50"
    path.write_text(f"{head}\n0,{row},0.99\n1,{row},99\n")
    assert ingest(workspace, [path], "d").rows_rejected == 1
    with open_store(workspace) as con:
        assert con.execute("SELECT detail FROM rejects").fetchall() == [
            ("kv_usage_ratio of candidate a is 99, expected 0 to 1",)
        ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1,a,0,5,5,20,3,40,0,0,0,0", "wrong-value: prompt_tokens is 0, expected 1 or more"),
        ("1,c,100,5,105,20,3,40,0,0,0,0", "chosen-not-candidate: the chosen instance is not among the candidates"),
        ("1,a,100,5,105,-20,3,40,0,0,0,0", "negative-latency: ttft_ms is -20, expected 0 or more"),
        ("1,a,100,5,105,20,3,40,150,0,0,0", "unit-out-of-range: hit_ratio of candidate a is 1.5, expected 0 to 1"),
        (
            "1,a,100,5,105,20,3,40,0,-1,0,0",
            "negative-count: inflight_requests of candidate a is -1, expected 0 or more",
        ),
        ("1,a,1e2x,5,105,20,3,40,0,0,0,0", "wrong-type: column 'input_tokens': '1e2x' is no number"),
        ("1,a,99.5,5,105,20,3,40,0,0,0,0", "wrong-type: column 'input_tokens': '99.5' is no whole number"),
        ("1,a,100,5", "field-count: expected 12 fields, found 4"),
        (",a,100,5,105,20,3,40,0,0,0,0", "missing-key: request_id is missing, though other rows have it"),
        ("0,a,100,5,105,20,3,40,0,0,0,0", "duplicate-id: request_id '0' is there already"),
    ],
)
def test_a_bad_csv_row_is_rejected_with_its_line_and_reason(
    row: str, reason: str, workspace: Workspace, tmp_path: Path
) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(csv_log("0,a,100,5,105,20,3,40,0,0,0,0", row))
    report = ingest(workspace, [path], "bad")
    assert (report.rows_read, report.rows_stored, report.rows_rejected) == (2, 1, 1)
    with open_store(workspace) as con:
        assert con.execute("SELECT line, reason || ': ' || detail, raw FROM rejects").fetchall() == [(3, reason, row)]


def test_a_cut_klog_line_is_rejected(traces: Path, workspace: Workspace, tmp_path: Path) -> None:
    lines = (traces / "lodestar" / "gateway-2026-04.klog").read_text().splitlines()
    path = tmp_path / "cut.klog"
    path.write_text("\n".join(["another line of the gateway", lines[0], lines[1][:1200]]))
    report = ingest(workspace, [path], "cut")
    assert (report.rows_read, report.rows_stored, report.rows_rejected) == (2, 1, 1)
    assert report.sources[0].notes == ("1 lines without @latency_metrics@ were no request lines",)


def test_every_format_tells_what_it_provides() -> None:
    known = {"arrivals", "blocks", "decisions", "candidates", "propensities", "outcomes", "engine samples"}
    for name, format in formats().items():
        assert name == format.name
        assert "\n" not in format.description
        assert set(format.provides) <= known


def test_an_unknown_format_lists_the_known(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"format 'moncake' is not known; did you mean 'mooncake'\?"):
        ingest(workspace, [tmp_path / "x"], "d", format="moncake")


def test_an_unrecognised_file_is_one_line_with_its_first_characters(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("hello\nworld")
    with pytest.raises(DataError, match=r"x\.txt: no known format starts with 'hello\\nworld'.*--format") as caught:
        ingest(workspace, [path], "d")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("format", ["azure", "lodestar-csv", "lodestar-klog"])
def test_a_forced_format_that_does_not_fit_is_one_line(format: str, workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("hello\nworld")
    with pytest.raises(DataError, match=r"x\.txt: .*(missing|no line)"):
        ingest(workspace, [path], "d", format=format)
