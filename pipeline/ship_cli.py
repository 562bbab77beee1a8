"""The command that writes an artifact, or verifies one: what a router's start-up runs before it loads it."""

from __future__ import annotations

from typing import Annotated

import typer

from lodestar.pipeline.console import Home, Json, Seed, emit, progress_bar

__all__ = ["ship"]


def ship(
    dataset: Annotated[str | None, typer.Argument(help="Dataset whose models to ship.")] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="PLACE",
            help="Where: a directory, a name that ends in .tar, or a URL of either, as in s3://b/x.tar.",
        ),
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(
            "--check", metavar="PLACE", help="Verify the artifact at this place instead: hashes, golden rows, exports."
        ),
    ] = None,
    exports: Annotated[
        str | None, typer.Option("--with", help="Formats to add, separated by commas: treelite, onnx.")
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy", help="Policy that the router is to run, with its settings.", show_default="lodestar-online"
        ),
    ] = None,
    objective: Annotated[
        str | None, typer.Option("--objective", help="Latency that the router is to minimise.", show_default="ttft_ms")
    ] = None,
    ungated: Annotated[
        bool, typer.Option("--ungated", help="Ship models that the promotion gate did not pass, too.")
    ] = False,
    home: Home = None,
    as_json: Json = False,
    seed: Seed = 0,
) -> None:
    """Write the artifact that a router loads, or verify one."""
    from lodestar.pipeline.shipping import artifact_table, check_or_ship

    with progress_bar("check" if check else "ship"):
        done = check_or_ship(home, dataset, to, check, exports, policy, objective, ungated)
    emit(as_json, done, lambda: artifact_table(done))
