"""A calibration in the terminal: the verdict and what to do, coefficients with their intervals, errors, notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from lodestar.reports.grids import Cell, Column, Grid
from lodestar.reports.numbers import MISSING, decimals, number, percent
from lodestar.reports.tables import VERDICT_STYLES, grid_table

__all__ = ["calibration_tables"]

#: What is shown: the unit, and how many of it are one of the setting's own.
_SHOWN: Final = {
    "decode_base_ms": ("ms a step", 1.0),
    "decode_sequence_ms": ("µs a request", 1e3),
    "context_token_ms": ("µs a token", 1e3),
    "prefill_base_ms": ("ms a step", 1.0),
    "prompt_token_ms": ("µs a token", 1e3),
    "prefill_sequence_ms": ("µs a request", 1e3),
    "prefill_context_token_ms": ("µs a token", 1e3),
    "attention_ms": ("ns a token²", 1e6),
    "request_overhead_ms": ("ms", 1.0),
    "kv_capacity_tokens": ("tokens", 1),
    "max_sequences": ("requests", 1),
    "max_batched_tokens": ("tokens", 1),
}
_MEANINGS: Final = {
    "trusted": "the logged choices, replayed on these engines, give back what was measured",
    "untrusted": "these engines do not give back what was measured: do not act on replays of them",
    "not judged": "too little was measured to say whether these engines give it back",
}
_SIGNED: Final = ("mean_error", "p50_error", "p99_error")


def calibration_tables(found: Mapping[str, Any]) -> RenderableType:
    """Draw what `calibrate_dataset` found."""
    parts: list[RenderableType] = [
        Text().append("Calibration of ").append(found["dataset"], style="bold").append(f" · from {found['source']}\n"),
        _verdict(
            found, [*(f"  · {reason}" for reason in found["trust"]["reasons"]), f"identified: {_identified(found)}"]
        ),
        grid_table(_engine_grid(found)),
    ]
    if found["speeds"]:
        parts.append(grid_table(_speeds_grid(found)))
    if found["fitted_part"]["requests"] or found["held_out"]["requests"]:
        parts.append(grid_table(_errors_grid(found)))
    parts.append(_notes(found))
    if found["trust"]["verdict"] != "trusted":
        parts.append(_verdict(found))  # the last lines are what a terminal shows
    return Group(*parts)


def _verdict(found: Mapping[str, Any], between: Sequence[str] = ()) -> Text:
    """Return the verdict in the loud words of a replay, these lines, and what to do."""
    verdict = found["trust"]["verdict"]
    style = VERDICT_STYLES.get(verdict, "bold black on yellow")
    text = Text().append(f" {verdict.upper()} ", style=style).append(f" {_MEANINGS[verdict]}\n")
    for line in between:
        text.append(f"{line}\n")
    return text.append(f"next: {found['next']}\n")


def _identified(found: Mapping[str, Any]) -> str:
    """Say how many settings the log tells, and which it leaves open.

    >>> _identified({"identified": {"prompt_token_ms": True, "max_sequences": False}})
    '1 of 2 settings; not max sequences'
    >>> _identified({"identified": {}})
    'nothing, as nothing was fitted'
    """
    told = found["identified"]
    if not told:
        return "nothing, as nothing was fitted"
    left_open = [_label(name) for name, known in told.items() if not known]
    return f"{len(told) - len(left_open)} of {len(told)} settings" + (
        f"; not {', '.join(left_open)}" if left_open else ""
    )


def _engine_grid(found: Mapping[str, Any]) -> Grid:
    engine, told, names = found["engine"], found["identified"], list(_SHOWN)
    low, high = ({name: ends[side] for name, ends in found["intervals"].items()} for side in (0, 1))
    return Grid(
        "Engine of the typical instance",
        [
            Column("setting", "", [Cell(_label(name)) for name in names], left=True),
            *(
                Column(title, unit, [Cell(_figure(values.get(name), name)) for name in names])
                for title, unit, values in (("value", "", engine), ("from", "95 %", low), ("to", "95 %", high))
            ),
            Column("unit", "", [Cell(_SHOWN[name][0]) for name in names], left=True),
            Column("told", "", [_told(told.get(name)) for name in names], left=True),
        ],
    )


def _speeds_grid(found: Mapping[str, Any]) -> Grid:
    speeds, p_value = found["speeds"], found["speeds_p_value"]
    notes = [] if p_value is None else [f"instances as fast as each other would differ so much with p = {p_value:.2g}"]
    return Grid(
        "Steps of each instance, as multiples",
        [
            Column("instance", "", [Cell(each["instance"]) for each in speeds], left=True),
            Column("estimate", "", [Cell(number(each["estimate"], 3)) for each in speeds]),
            Column("from", "95 %", [Cell(number(each["ci95"] and each["ci95"][0], 3)) for each in speeds]),
            Column("to", "95 %", [Cell(number(each["ci95"] and each["ci95"][1], 3)) for each in speeds]),
            Column("used", "", [_used(each["used"]) for each in speeds]),
        ],
        notes,
    )


def _errors_grid(found: Mapping[str, Any]) -> Grid:
    parts = {"fitted_part": "first part", "held_out": "held out"}
    labels = {"ttft_ms": "TTFT", "tpot_ms": "TPOT"}
    rows = {
        f"{label}, {words}": found[part][name]
        for name, label in labels.items()
        for part, words in parts.items()
        if found[part].get(name)
    }
    titles = {
        "mean_error": "mean",
        "p50_error": "P50",
        "p99_error": "P99",
        "median_absolute_error": "request",
    }
    return Grid(
        "Errors of these engines, the logged choices replayed",
        [
            Column("latency", "", [Cell(name) for name in rows], left=True),
            Column("requests", "", [Cell(number(row["requests"])) for row in rows.values()]),
            *(
                Column(title, "%", [Cell(percent(row[key], signed=key.endswith(_SIGNED))) for row in rows.values()])
                for key, title in titles.items()
            ),
        ],
        ["the first part is what a fit to latencies is made of; the rest is held out of every fit"],
    )


def _notes(found: Mapping[str, Any]) -> Text:
    text = Text()
    loss = found.get("loss")
    if loss is not None:
        text.append(f"training loss {loss:.3f} after {number(found['evaluations'])} replays\n", style="dim")
    for note in [*found["notes"], *found["trust"]["notes"]]:
        text.append(f"  · {note}\n")
    for file in found["files"]:
        text.append(f"written to {file}\n", style="dim")
    return text


def _label(name: str) -> str:
    """Return a setting's name in words.

    >>> _label("prompt_token_ms"), _label("kv_capacity_tokens")
    ('prompt token', 'kv capacity')
    """
    return name.removesuffix("_ms").removesuffix("_tokens").replace("_", " ")


def _figure(value: float | None, name: str) -> str:
    """Write a setting in its unit, with three figures.

    >>> _figure(0.00020909, "context_token_ms"), _figure(207513, "kv_capacity_tokens"), _figure(None, "max_sequences")
    ('0.209', '207,513', '–')
    """
    if value is None:
        return MISSING
    shown = value * _SHOWN[name][1]
    return number(shown, decimals([shown], figures=3))


def _told(told: bool | None) -> Cell:
    return Cell(MISSING) if told is None else Cell("yes", mark="good") if told else Cell("no", mark="bad")


def _used(factor: float) -> Cell:
    return Cell(number(factor, 3), mark="best" if abs(factor - 1) > 0.05 else "")
