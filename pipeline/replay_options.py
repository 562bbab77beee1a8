"""The options that all commands have which replay: what to compare with, how often, and what counts."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["ArrivalsFrom", "Baseline", "Seeds", "SloTtftMs", "WarmupRatio"]

Baseline = Annotated[str | None, typer.Option("--baseline", help="Compare with this one.", show_default="the first")]
Seeds = Annotated[int, typer.Option("--seeds", min=1, help="Replays of each policy.")]
ArrivalsFrom = Annotated[
    str | None, typer.Option("--arrivals-from", help="Dataset that has the arrival times of the same requests.")
]
WarmupRatio = Annotated[
    float, typer.Option("--warmup-ratio", help="Share of the requests, from the first, that is left out.")
]
SloTtftMs = Annotated[float, typer.Option("--slo-ttft-ms", help="TTFT that is still good.")]
