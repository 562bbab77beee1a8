from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from lodestar.data.ingest import IngestReport
from lodestar.data.log import RequestLog
from lodestar.data.reconstruction.arms import aligned, arms_of
from lodestar.data.reconstruction.reconstruct import workload_of
from lodestar.data.store import load_log, open_store
from lodestar.data.workspace import Workspace

Ingested = tuple[Workspace, dict[str, IngestReport]]


@pytest.mark.parametrize(
    ("dataset", "arms"),
    [
        ("sharing47-rl", ["sharing47-prefix", "sharing47-random"]),
        # The klogs hold the arms `prefix` and `rl` once more.
        ("sharing09-random", ["klog-prefix", "klog-rl"]),
        ("klog-rl", ["klog-prefix", "sharing09-random"]),
        ("azure", []),
        ("klog-2026", []),
    ],
)
def test_the_arms_of_a_stream_are_found_once_each(dataset: str, arms: list[str], ingested: Ingested) -> None:
    with open_store(ingested[0]) as con:
        assert [arm.dataset for arm in arms_of(con, load_log(con, dataset))] == arms


def test_an_arm_that_is_to_be_predicted_is_withheld_under_any_name(ingested: Ingested) -> None:
    with open_store(ingested[0]) as con:
        log, prefix = load_log(con, "sharing09-random"), load_log(con, "sharing09-prefix")
        assert [arm.dataset for arm in arms_of(con, log, [prefix])] == ["klog-rl"]


def test_arms_stand_row_by_row_and_lacking_requests_are_unknown(made_log: Callable[..., RequestLog]) -> None:
    log = made_log(20)
    other = dataclasses.replace(
        log,
        request_id=["elsewhere", *log.request_id[1:]],
        chosen=2 - log.chosen,
    )
    arm = aligned(log, other)
    assert np.isnan(arm.hit_ratio[0]).all()
    assert arm.chosen[0] == -1
    assert np.array_equal(arm.chosen[1:], 2 - log.chosen[1:])
    assert np.array_equal(arm.hit_ratio[1:], log.snapshot["hit_ratio"][1:])


def test_other_arms_are_named_with_how_well_they_foretell(real_log: Callable[[str], RequestLog]) -> None:
    log = real_log("sharing09-random")
    workload = workload_of(log, arms=[real_log("sharing09-prefix"), real_log("sharing09-rl")])
    found = {one.column: one for one in workload.found}["blocks"]
    assert found.note.startswith("also from sharing09-prefix, sharing09-rl, which have the same requests; from these")
    assert found.quality is not None
    assert found.quality >= 0.97


def test_one_arm_alone_says_nothing_of_others(real_log: Callable[[str], RequestLog]) -> None:
    found = {one.column: one for one in workload_of(real_log("sharing09-random")).found}["blocks"]
    assert found.note == ""
