"""All estimates of a dataset in the terminal: what to make of them first, then each table, then what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from lodestar.reports.estimate_grids import estimate_grids
from lodestar.reports.estimates import closed_loop_grid
from lodestar.reports.numbers import number
from lodestar.reports.policies import policy_warnings
from lodestar.reports.said import sentence
from lodestar.reports.tables import grid_table, sentences, verdict_text

__all__ = ["estimate_tables"]


def estimate_tables(found: Mapping[str, Any], whole: bool = False) -> RenderableType:
    """Draw what `estimate_dataset` returned: one step beside closed loop first.

    Args:
        found: the document.
        whole: with every estimator, tail, derivative and check, and how all was inferred that is not logged.
    """
    parts: list[RenderableType] = [_heading(found)]
    if found["trust"] is not None:
        parts.append(verdict_text(found))  # type: ignore[arg-type]
    if not found["gap"]:
        parts += [Text(sentence(note) + "\n", style="yellow") for note in found["gap_notes"]]
    parts += _closed_loop(found)
    parts += [grid_table(grid) for grid in estimate_grids(found, brief=not whole).values()]
    if found["one_step_notes"]:
        parts.append(Text("".join(f"{sentence(note)}\n" for note in found["one_step_notes"]), style="dim"))
    if found.get("seeds", 0) > 1:
        parts.append(Text(f"Closed-loop intervals: {found['intervals']['how']}.\n", style="dim"))
    if found["inferred"]:
        parts.append(_inferred(found, whole))
    return Group(*parts, Text(_next(found, whole)))


def _heading(found: Mapping[str, Any]) -> Text:
    window = found["window"]
    counted = f"{number(window['requests'])} of {number(found['requests'])} requests, {found['instances']} instances"
    left_out = f"Not counted: {window['why']}.\n" if window["warmup_requests"] else ""
    return Text.assemble("Estimates of ", (found["dataset"], "bold"), f": {counted}\n", (left_out, "dim"))


def _closed_loop(found: Mapping[str, Any]) -> list[RenderableType]:
    """Draw the policies that have a closed loop and no one-step value, and what no closed loop may be read without."""
    beside = {row["policy"] for row in found["gap"]}
    alone = [row for row in found["policies"] if row["policy"] not in beside]
    flags = [Text(flag, style="yellow") for flag in policy_warnings(found)]  # type: ignore[arg-type]
    if found.get("seeds") == 1:
        flags.append(Text(f"Closed loop: {found['intervals']['how']}.", style="yellow"))
    if flags:
        flags.append(Text())
    return [*([grid_table(closed_loop_grid(alone, found["trust"]["verdict"]))] if alone else []), *flags]


def _inferred(found: Mapping[str, Any], whole: bool) -> RenderableType:
    if whole:
        return sentences("Inferred, because the log does not say", found["inferred"])
    names = ", ".join(found["inferred"])
    return Text(f"Inferred, because the log does not say: {names}. How: --all, or the report.\n", style="dim")


def _next(found: Mapping[str, Any], whole: bool) -> str:
    """Say in one line what to do now."""
    every = "" if whole else "; --all prints more"
    if found["trust"] is None:
        return f"Next: leave out --one-step-only, as only a closed loop is a policy's performance{every}."
    if found["trust"]["verdict"] == "untrusted":
        return f"Next: lodestar report shows which gates failed; act on no closed loop before they pass{every}."
    return f"Next: lodestar report writes every table and figure as one HTML file{every}."
