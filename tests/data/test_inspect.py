from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lodestar.data import schema as s
from lodestar.data import uses
from lodestar.data.formats.native import write_decision_log
from lodestar.data.ingest import IngestReport, ingest
from lodestar.data.inspect import inspect_dataset
from lodestar.data.log import RequestLog
from lodestar.data.store import open_store
from lodestar.data.workspace import Workspace
from lodestar.models.candidate import TRAINING_SHARE
from lodestar.models.fit import MIN_ROWS
from lodestar.pipeline.estimating import estimate_dataset
from lodestar.pipeline.replay.calibration.calibrate import FEWEST_REQUESTS
from lodestar.pipeline.replay.calibration.stretch import TRAINING_SHARE as CALIBRATION_SHARE
from lodestar.pipeline.replay.estimates.logged_inputs import FEWEST_REQUESTS as FEWEST_ESTIMATED
from lodestar.pipeline.replay.settings import Settings
from lodestar.pipeline.replay.window import WARMUP_RATIO

Ingested = tuple[Workspace, dict[str, IngestReport]]


def allowed(summary: dict[str, object]) -> dict[str, bool]:
    uses = summary["allows"]
    assert isinstance(uses, dict)
    return {use: verdict["allowed"] for use, verdict in uses.items()}


@pytest.mark.parametrize(
    ("name", "uses"),
    [
        ("sharing47-random", {"train", "one-step", "weighted one-step", "replay", "calibrate"}),
        ("sharing47-prefix", {"train", "one-step", "replay", "calibrate"}),
        ("klog-rl", {"train", "one-step", "replay", "calibrate"}),
        ("klog-2026", {"replay"}),
        ("mooncake", {"replay"}),
        ("azure", {"replay"}),
    ],
)
def test_a_dataset_allows_what_its_log_can_carry(name: str, uses: set[str], ingested: Ingested) -> None:
    summary = inspect_dataset(ingested[0], name)
    assert {use for use, fine in allowed(summary).items() if fine} == uses
    assert all(verdict["why_not"] for verdict in summary["allows"].values() if not verdict["allowed"])


def test_the_summary_is_json(ingested: Ingested) -> None:
    text = json.dumps(inspect_dataset(ingested[0], "sharing47-random"), allow_nan=False)
    assert json.loads(text)["rows"] == 2311


def test_rejects_are_listed_by_reason_with_the_first_few(ingested: Ingested) -> None:
    (reject,) = inspect_dataset(ingested[0], "sharing47-random")["rejects"]
    assert (reject["reason"], reject["rows"]) == ("wrong-value", 2)
    assert [first["line"] for first in reject["first"]] == [1202, 1351]


def test_times_without_a_zone_are_said_to_be_taken_as_utc(ingested: Ingested) -> None:
    summary = inspect_dataset(ingested[0], "azure")
    assert summary["sources"][0]["notes"] == "times without a zone are taken as UTC"
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


def summary_of(log: RequestLog, workspace: Workspace, tmp_path: Path) -> dict[str, Any]:
    write_decision_log(tmp_path / "log.jsonl", log)
    ingest(workspace, [tmp_path / "log.jsonl"], "d")
    return inspect_dataset(workspace, "d")


def test_the_limits_are_those_of_the_commands() -> None:
    assert uses.FITTED_SHARE == TRAINING_SHARE == CALIBRATION_SHARE
    assert uses.FEWEST_FITTED == MIN_ROWS == FEWEST_REQUESTS
    assert uses.FEWEST_ONE_STEP == FEWEST_ESTIMATED
    assert uses.WARMUP_RATIO == WARMUP_RATIO


def quick(log: RequestLog) -> RequestLog:
    """The same log with outcomes that are known before the next arrival."""
    n = len(log)
    return dataclasses.replace(log, arrived_at_s=np.arange(n, dtype=np.float64) * 60.0)


@pytest.mark.parametrize(("requests", "fine"), [(70, False), (75, True)])
def test_training_and_calibration_need_enough_requests(
    requests: int, fine: bool, made_log: Callable[..., RequestLog], workspace: Workspace, tmp_path: Path
) -> None:
    allows = summary_of(quick(made_log(n=requests)), workspace, tmp_path)["allows"]
    assert (allows["train"]["allowed"], allows["calibrate"]["allowed"]) == (fine, fine)
    if not fine:
        assert allows["train"]["why_not"].startswith("70 requests with decision, ttft_ms and finish, 49 of them")
        assert "expected at least 50" in allows["train"]["why_not"]
        assert allows["calibrate"]["why_not"].startswith("49 requests with a decision and TTFT")


def test_what_was_still_running_at_the_cut_does_not_train(
    made_log: Callable[..., RequestLog], workspace: Workspace, tmp_path: Path
) -> None:
    log = dataclasses.replace(made_log(n=80), arrived_at_s=np.arange(80) / 1e3)
    assert not summary_of(log, workspace, tmp_path)["allows"]["train"]["allowed"]


def test_a_log_without_e2e_trains_where_ttft_and_tpot_tell_it(
    made_log: Callable[..., RequestLog], workspace: Workspace, tmp_path: Path
) -> None:
    log = quick(made_log(n=100))
    told = summary_of(dataclasses.replace(log, e2e_ms=np.full(100, np.nan)), workspace, tmp_path)
    assert told["allows"]["train"]["allowed"]


def test_a_log_without_candidates_trains_on_what_can_be_inferred(
    made_log: Callable[..., RequestLog], workspace: Workspace, tmp_path: Path
) -> None:
    log = quick(made_log(n=100))
    unknown = np.full_like(log.probability, np.nan)
    bare = dataclasses.replace(
        log,
        candidate=np.zeros_like(log.candidate),
        snapshot=dict.fromkeys(log.snapshot, unknown),
        probability=unknown,
        propensity=np.full(100, np.nan),
    )
    allows = summary_of(bare, workspace, tmp_path)["allows"]
    assert allows["train"]["allowed"]
    assert allows["one-step"]["why_not"].startswith("no candidates are logged")


def test_a_log_without_any_finish_does_not_train(
    made_log: Callable[..., RequestLog], workspace: Workspace, tmp_path: Path
) -> None:
    unknown = np.full(100, np.nan)
    log = dataclasses.replace(quick(made_log(n=100)), e2e_ms=unknown, tpot_ms=unknown)
    why = summary_of(log, workspace, tmp_path)["allows"]["train"]["why_not"]
    assert why == "no request has a decision, TTFT or TPOT, and the time of its finish"


def known_of(log: RequestLog, known: NDArray[np.bool_]) -> RequestLog:
    """The same log with the propensities of these decisions alone."""
    return dataclasses.replace(
        log,
        propensity=np.where(known, log.propensity, np.nan),
        probability=np.where(known[:, None], log.probability, np.nan),
    )


@pytest.mark.parametrize(("known", "fine"), [(0, (True, False)), (150, (True, False)), (250, (True, True))])
def test_one_step_goes_without_propensities_and_weights_do_not(
    known: int, fine: tuple[bool, bool], made_log: Callable[..., RequestLog], workspace: Workspace, tmp_path: Path
) -> None:
    """As `lodestar estimate` does: with none or few, dm speaks for all decisions; with more, weights are judged."""
    log = known_of(quick(made_log(n=400)), np.arange(400) >= 400 - known)
    write_decision_log(tmp_path / "log.jsonl", log)
    ingest(workspace, [tmp_path / "log.jsonl"], "d")
    told = inspect_dataset(workspace, "d")["allows"]
    assert (told["one-step"]["allowed"], told["weighted one-step"]["allowed"]) == fine
    settings = Settings(["random"])
    found = estimate_dataset(workspace, "d", settings, closed_loop=False)
    assert found["one_step"]
    assert [row["weights"]["decisions"] for row in found["one_step_diagnostics"]] == ([known] if fine[1] else [])
    if not fine[1]:
        begins = {
            0: "no propensities are logged, and 400 decisions are too",
            150: "150 requests after the warm-up have",
        }
        assert told["weighted one-step"]["why_not"].startswith(begins[known])


def test_one_step_counts_what_is_left_after_the_warm_up(
    made_log: Callable[..., RequestLog], workspace: Workspace, tmp_path: Path
) -> None:
    why = summary_of(quick(made_log(n=200)), workspace, tmp_path)["allows"]["one-step"]["why_not"]
    assert why == ("190 requests after the warm-up have a decision and a TTFT; expected at least 200")


def test_an_instance_that_joins_halfway_is_named(
    made_log: Callable[..., RequestLog], workspace: Workspace, tmp_path: Path
) -> None:
    log = made_log(n=40)
    late = np.arange(40) < 20
    candidate = log.candidate.copy()
    candidate[late, 2] = False
    grids = {name: np.where(candidate, values, np.nan) for name, values in log.snapshot.items()}
    log = dataclasses.replace(
        log,
        candidate=candidate,
        chosen=np.where(late, 0, log.chosen),
        snapshot=grids,
        probability=np.full_like(log.probability, np.nan),
        propensity=np.full(40, np.nan),
    )
    summary = summary_of(log, workspace, tmp_path)
    assert [instance["candidate_share"] for instance in summary["instances"]] == [1.0, 1.0, 0.5]
    assert summary["inferred"]["candidates"] == "1 instances are candidates of some decisions only: pod-2 in 50.0%"


def test_every_table_is_one_that_a_format_fills(ingested: Ingested) -> None:
    with open_store(ingested[0]) as con:
        empty = [table for table in s.TABLES if not con.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0]]
    assert empty == []
