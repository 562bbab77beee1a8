from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from lodestar.data.ingest import IngestReport, ingest
from lodestar.data.inspect import inspect_dataset
from lodestar.data.workspace import Workspace

Ingested = tuple[Workspace, dict[str, IngestReport]]


def allowed(summary: dict[str, object]) -> dict[str, bool]:
    uses = summary["allows"]
    assert isinstance(uses, dict)
    return {use: verdict["allowed"] for use, verdict in uses.items()}


@pytest.mark.parametrize(
    ("name", "uses"),
    [
        ("sharing47-random", {"train", "one-step", "replay", "calibrate"}),
        ("sharing47-prefix", {"train", "replay", "calibrate"}),
        ("klog-rl", {"train", "replay", "calibrate"}),
        ("klog-2026", {"train", "replay"}),
        ("mooncake", {"replay"}),
        ("azure", {"replay"}),
    ],
)
def test_a_dataset_allows_what_its_log_can_carry(name: str, uses: set[str], ingested: Ingested) -> None:
    summary = inspect_dataset(ingested[0], name)
    assert {use for use, fine in allowed(summary).items() if fine} == uses
    assert all(verdict["why_not"] for verdict in summary["allows"].values() if not verdict["allowed"])


def test_the_summary_is_json_and_fast(ingested: Ingested) -> None:
    inspect_dataset(ingested[0], "sharing47-random")
    start = time.monotonic()
    text = json.dumps(inspect_dataset(ingested[0], "sharing47-random"), allow_nan=False)
    assert time.monotonic() - start < 2
    assert json.loads(text)["rows"] == 2311


def test_rejects_are_listed_by_reason_with_the_first_few(ingested: Ingested) -> None:
    (reject,) = inspect_dataset(ingested[0], "sharing47-random")["rejects"]
    assert (reject["reason"], reject["rows"]) == ("prompt_tokens is not positive", 2)
    assert [first["line"] for first in reject["first"]] == [1202, 1351]


def test_times_without_a_zone_are_said_to_be_taken_as_utc(ingested: Ingested) -> None:
    summary = inspect_dataset(ingested[0], "azure")
    assert summary["sources"][0]["notes"] == "times carry no zone and are taken as UTC"
    assert summary["time"]["origin"] == "2023-11-16T18:15:46.680590+00:00"


def test_what_is_inferred_is_said_with_how_well(ingested: Ingested) -> None:
    inferred = inspect_dataset(ingested[0], "sharing09-random")["inferred"]
    assert "correlation of 0.99" in inferred["arrivals"]
    assert "of requests within one percentage point" in inferred["blocks"]
    assert inferred["decode_tokens"].startswith("the logged counter drifts")


def test_a_dataset_of_rejects_only_can_be_inspected(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:01,0,1\n")
    ingest(workspace, [path], "empty")
    summary = inspect_dataset(workspace, "empty")
    assert summary["rows"] == 0
    assert not any(allowed(summary).values())
    assert "holds no requests" in summary["allows"]["replay"]["why_not"]
