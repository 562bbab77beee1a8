"""The options that all commands have which replay: what to compare with, how often, and what counts."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["ArrivalsFrom", "Baseline", "Blocks", "SameRequests", "Seeds", "SloTtftMs", "WarmupRatio"]

Baseline = Annotated[str | None, typer.Option("--baseline", help="Compare with this one.", show_default="the first")]
Seeds = Annotated[int, typer.Option("--seeds", min=1, help="Replays of each policy; one alone has no intervals.")]
Blocks = Annotated[
    int,
    typer.Option(
        "--blocks",
        help="Blocks of consecutive requests, 8 to 100, that one-step intervals rest on: fewer and so longer ones "
        "where queues or conversations remember long. Closed-loop intervals rest on 20.",
    ),
]
SameRequests = Annotated[
    bool,
    typer.Option(
        "--same-requests",
        help="Intervals of one-step values are for these very requests sent again, such as a benchmark's, not for "
        "other traffic like them.",
    ),
]
ArrivalsFrom = Annotated[
    str | None, typer.Option("--arrivals-from", help="Dataset that has the arrival times of the same requests.")
]
WarmupRatio = Annotated[
    float, typer.Option("--warmup-ratio", help="Share of the requests, from the first, that is left out.")
]
SloTtftMs = Annotated[float, typer.Option("--slo-ttft-ms", help="TTFT that is still good.")]
