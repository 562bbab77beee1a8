"""The tables that the estimates of a document fill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from lodestar.reports.beyond_one_step import derivatives_grid, router_test_grid
from lodestar.reports.differences import differences_grid
from lodestar.reports.estimates import estimators_grid, read_first
from lodestar.reports.gap import gap_grid
from lodestar.reports.grids import Grid
from lodestar.reports.said import said_once, sentence
from lodestar.reports.tails import tails_grid
from lodestar.reports.weights import checks_grid, weights_grid

__all__ = ["estimate_grids"]

Row = Mapping[str, Any]

#: Of the estimators, where not all are shown: the model alone, the weights alone, both, and both by all routers.
SHOWN: Final = ("dm", "snipw", "dr", "balanced-dr")


def estimate_grids(found: Mapping[str, Any], brief: bool = False) -> dict[str, Grid]:
    """Return every table that the estimates of a document fill, by name, in the order to read them.

    Args:
        found: what `replay` or `estimate_dataset` returned.
        brief: with a few of the estimators, tails by the one to read first, and without what these rest on.
    """
    steps, tails = found["one_step"], found.get("one_step_tails", [])
    judged, slo_ttft_ms = found.get("one_step_diagnostics", []), found["slo"]["ttft_ms"]
    if brief:
        steps, tails = [row for row in steps if row["estimator"] in SHOWN], _first(tails)
    grids = {}
    if found.get("gap"):
        gap = gap_grid(found["gap"], found["trust"]["verdict"], brief)
        grids["gap"] = replace(gap, notes=[*map(sentence, found.get("gap_notes", [])), *gap.notes])
    if judged:
        grids["weights"] = weights_grid(judged, brief)
    if steps:
        grids["estimators"] = estimators_grid(steps, [row["policy"] for row in judged], brief and "gap" in grids)
    if found.get("one_step_differences"):
        grids["differences"] = differences_grid(found["one_step_differences"], found["baseline"], slo_ttft_ms)
    if tails:
        grids["tails"] = tails_grid(tails, slo_ttft_ms)
    if found.get("test"):
        grids["test"] = router_test_grid(found["test"])
    if found.get("derivatives") and not brief:
        grids["derivatives"] = derivatives_grid(found["derivatives"])
    if judged and not brief:
        grids["checks"] = checks_grid(judged)
    return grids


def _first(tails: Sequence[Row]) -> list[Row]:
    """Return the tails of each policy by the estimator to read first of those that tell any."""
    every = said_once((row["estimator"], row["policy"]) for row in tails)
    told = said_once((row["estimator"], row["policy"]) for row in tails if row["value"] is not None)
    return [row for row in tails if row["estimator"] == read_first((every | told)[row["policy"]])]
