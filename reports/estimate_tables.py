"""All estimates of a dataset in the terminal: what to make of them first, then each table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from lodestar.reports.beyond_one_step import derivatives_grid, router_test_grid
from lodestar.reports.estimates import closed_loop_grid, differences_grid, estimators_grid, gap_grid
from lodestar.reports.grids import Grid
from lodestar.reports.numbers import number
from lodestar.reports.policies import policy_warnings
from lodestar.reports.tables import grid_table, sentences, verdict_text
from lodestar.reports.tails import tails_grid
from lodestar.reports.weights import checks_grid, weights_grid

__all__ = ["estimate_grids", "estimate_tables"]


def estimate_tables(found: Mapping[str, Any]) -> RenderableType:
    """Draw what `estimate_dataset` returned: one step beside closed loop first."""
    window = found["window"]
    heading = Text.assemble(
        ("Estimates ", "bold"), found["dataset"], f": {number(window['requests'])} of {number(found['requests'])} "
        f"requests, {found['instances']} instances\n",
    )  # fmt: skip
    parts: list[RenderableType] = [heading]
    if found["trust"] is not None:
        parts.append(verdict_text(found))  # type: ignore[arg-type]
    parts += _closed_loop(found)
    parts += [grid_table(grid) for grid in estimate_grids(found).values()]
    if found["one_step_note"]:
        parts.append(Text(f"Note: {found['one_step_note']}.", style="dim"))
    if found["inferred"]:
        parts += [Text(), sentences("Inferred, because the log does not say", found["inferred"])]
    # The last lines are what a terminal shows.
    parts += [Text(f"{note[0].upper()}{note[1:]}.", style="yellow") for note in found["gap_notes"]]
    parts += [Text(row["sentence"]) for row in found["gap"]]
    parts += [Text(f"{row['policy']}: {row['verdict']['sentence']}.") for row in found.get("one_step_diagnostics", [])]
    return Group(*parts)


def _closed_loop(found: Mapping[str, Any]) -> list[RenderableType]:
    """Draw the policies that have a closed loop and no one-step value, and what no closed loop may be read without."""
    beside = {row["policy"] for row in found["gap"]}
    alone = [row for row in found["policies"] if row["policy"] not in beside]
    flags = [Text(flag, style="yellow") for flag in policy_warnings(found)]  # type: ignore[arg-type]
    if flags:
        flags.append(Text())
    return [*([grid_table(closed_loop_grid(alone, found["trust"]["verdict"]))] if alone else []), *flags]


def estimate_grids(found: Mapping[str, Any]) -> dict[str, Grid]:
    """Return every table that the estimates of a document fill, by name, in the order to read them."""
    verdict = found["trust"]["verdict"] if found["trust"] else "not judged"
    grids = {}
    if found.get("gap"):
        grids["gap"] = gap_grid(found["gap"], verdict)
    if found.get("one_step_diagnostics"):
        grids["weights"] = weights_grid(found["one_step_diagnostics"])
    if found["one_step"]:
        grids["estimators"] = estimators_grid(found["one_step"])
    if found.get("one_step_differences"):
        grids["differences"] = differences_grid(found["one_step_differences"], found["baseline"])
    if found.get("one_step_tails"):
        grids["tails"] = tails_grid(found["one_step_tails"])
    if found.get("derivatives"):
        grids["derivatives"] = derivatives_grid(found["derivatives"])
    if found.get("test"):
        grids["test"] = router_test_grid(found["test"])
    if found.get("one_step_diagnostics"):
        grids["checks"] = checks_grid(found["one_step_diagnostics"])
    return grids
