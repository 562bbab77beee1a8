"""Every real log ingests with the rows that its description promises, or says which it refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from house import ROOT, script

#: File → rows, as the description of the traces counts them; for spans and statistics as the files hold them.
PROMISED = {
    "lodestar/sharing09/random.csv.gz": 2491,
    "lodestar/sharing09/prefix.csv.gz": 2490,
    "lodestar/sharing09/rl.csv.gz": 2492,
    "lodestar/sharing09/prefix.klog.gz": 2490,
    "lodestar/sharing09/rl.klog.gz": 2492,
    "lodestar/sharing47/random.csv.gz": 2313,
    "lodestar/sharing47/prefix.csv.gz": 2314,
    "lodestar/sharing47/rl.csv.gz": 2313,
    "lodestar/gateway-2026-04.klog": 5,
    **{
        f"aibrix/{arm}/client-output.jsonl.gz": 320
        for arm in ("random", "least-request", "prefix-cache", "prefix-cache-and-load")
    },
    "aibrix/workload.jsonl.gz": 320,
    "llm-d-predictor/bimodal-h200.jsonl.gz": 3400,
    "llm-d-predictor/sharegpt-h200.jsonl.gz": 3400,
    "mooncake/conversation_trace.jsonl.gz": 12_031,
    "azure/AzureLLMInferenceTrace_conv.csv.gz": 19_366,
    "vllm-timeseries/rtxpro6000-Llama-3.1-8B/requests.jsonl.gz": 300,
    "vllm-timeseries/rtxpro6000-Qwen3-32B/requests.jsonl.gz": 300,
    "aiperf/profile_export.jsonl.gz": 100,
}
SKIPPED = {"golden_columns.json", "config.json.gz", "LICENSE"}


@pytest.fixture(scope="module")
def ingested(traces: Path) -> list[tuple[str, object, str]]:
    return list(script("make_ingested").rows(traces))


def test_every_file_has_the_rows_that_its_description_promises(ingested: list[tuple[str, object, str]]) -> None:
    counts = {file: source.rows_read for file, source, _ in ingested if source is not None}  # type: ignore[attr-defined]
    assert {file: counts[file] for file in PROMISED} == PROMISED
    sessions = [file for file in counts if file.startswith("weka/")]
    assert len(sessions) == 7
    assert sum(counts[file] for file in counts if file.endswith(".vllm.log.gz")) == 250


def test_no_row_is_lost(ingested: list[tuple[str, object, str]]) -> None:
    for file, source, why in ingested:
        if source is not None:
            assert source.rows_read == source.rows_stored + source.rows_rejected, file  # type: ignore[attr-defined]
            assert bool(source.rows_rejected) == bool(why), file  # type: ignore[attr-defined]


def test_every_file_is_read_or_is_no_log(ingested: list[tuple[str, object, str]], traces: Path) -> None:
    told = {file for file, _, _ in ingested}
    files = {str(path.relative_to(traces)) for path in traces.rglob("*") if path.is_file()}
    assert {Path(file).name for file in files - told} == {"LICENSE", "README.md"}
    assert {Path(file).name for file, source, _ in ingested if source is None} <= SKIPPED


def test_the_table_in_the_documents_is_what_happens(ingested: list[tuple[str, object, str]]) -> None:
    assert (ROOT / "docs" / "ingested.md").read_text() == script("make_ingested").table(ingested)
