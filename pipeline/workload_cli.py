"""The commands that make and change workloads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lodestar.pipeline.console import Home, Json, Seed, emit, progress_bar

__all__ = ["simulate", "workload_app"]

workload_app = typer.Typer(
    name="workload",
    help="Change a workload, keeping which requests share which prefixes.",
    invoke_without_command=True,
    rich_markup_mode=None,
)

Source = Annotated[str, typer.Argument(help="Name of a dataset, or a workload file.")]
Other = Annotated[str, typer.Argument(metavar="SOURCE2", help="Another one.")]
To = Annotated[Path, typer.Option("--to", help="File to write: .jsonl, .jsonl.gz, .jsonl.zst or .parquet.")]
Format = Annotated[str, typer.Option("--format", help="native, which holds all, or mooncake.")]
Ingest = Annotated[str | None, typer.Option("--dataset", help="Ingest the file, too, under this name.")]
ShareBlocks = Annotated[
    bool, typer.Option("--share-blocks", help="Equal block ids in both are equal prefixes: parts of one trace.")
]


@workload_app.callback()
def _verbs(context: typer.Context) -> None:
    """Change a workload, keeping which requests share which prefixes."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def simulate(
    recipe: Annotated[str | None, typer.Argument(help="Name of a preset, or a recipe file ending in .toml.")] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="File to write: .jsonl, .jsonl.gz, .jsonl.zst or .parquet.")
    ] = None,
    requests: Annotated[int | None, typer.Option("--requests", min=1, help="Number, whatever the recipe says.")] = None,
    rate_per_s: Annotated[float | None, typer.Option("--rate-per-s", help="Mean rate of the arrivals.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A key of the recipe, such as prefixes.sharing_ratio=0.3."),
    ] = None,
    format: Format = "native",
    dataset: Ingest = None,
    list_presets: Annotated[bool, typer.Option("--list", help="Show the presets.")] = False,
    show: Annotated[str | None, typer.Option("--show", metavar="PRESET", help="Print its TOML.")] = None,
    home: Home = None,
    as_json: Json = False,
    seed: Seed = 0,
) -> None:
    """Make a workload by a recipe: arrivals, lengths, prefixes."""
    from lodestar.data.workspace import Workspace
    from lodestar.pipeline.workload_files import Job, require_recipe, simulated, workload_tables

    if list_presets or show is not None:
        return _presets(show, as_json)
    named, path = require_recipe(recipe, to)
    with progress_bar("simulate"):
        job = Job(Workspace.open(home), seed, path, format, dataset)
        made = simulated(job, named, settings or [], requests, rate_per_s)
    return emit(as_json, made, lambda: workload_tables(made))


def _presets(show: str | None, as_json: bool) -> None:
    """Print the list of presets, or the TOML of one as it is, so that it can be saved."""
    from lodestar.data.workloads.presets import preset_text
    from lodestar.pipeline.listings import listing
    from lodestar.pipeline.workload_files import preset_rows

    if show is None:
        rows = preset_rows()
        emit(as_json, rows, lambda: listing(rows))
    elif as_json:
        typer.echo(json.dumps({"preset": show, "toml": preset_text(show)}, indent=2))
    else:
        typer.echo(preset_text(show), nl=False)


@workload_app.command(name="slice")
def slice_(
    source: Source,
    to: To,
    from_s: Annotated[float | None, typer.Option("--from-s", help="Keep what arrives from then on.")] = None,
    to_s: Annotated[float | None, typer.Option("--to-s", help="Keep what arrives before.")] = None,
    first: Annotated[int | None, typer.Option("--first", min=0, help="Index of the first request to keep.")] = None,
    requests: Annotated[int | None, typer.Option("--requests", min=1, help="Number of requests to keep.")] = None,
    format: Format = "native",
    dataset: Ingest = None,
    home: Home = None,
    as_json: Json = False,
    seed: Seed = 0,
) -> None:
    """Keep a stretch of time, or of requests by count."""
    from lodestar.data.workspace import Workspace
    from lodestar.pipeline.workload_files import Job, changed, slicer, workload_tables

    change = slicer(from_s, to_s, first, requests)
    with progress_bar("slice"):
        done = changed(Job(Workspace.open(home), seed, to, format, dataset), source, change)
    emit(as_json, done, lambda: workload_tables(done))


@workload_app.command()
def thin(
    source: Source,
    to: To,
    keep_ratio: Annotated[float, typer.Option("--keep-ratio", help="Share to keep, 0 to 1.")],
    groups: Annotated[
        bool, typer.Option("--groups", help="Keep or drop whole prefix groups: sessions, trees, sharing sets.")
    ] = False,
    below_blocks: Annotated[
        int | None,
        typer.Option(
            "--below-blocks", min=0, help="Blocks that don't tell groups apart.", show_default="those all begin with"
        ),
    ] = None,
    format: Format = "native",
    dataset: Ingest = None,
    home: Home = None,
    as_json: Json = False,
    seed: Seed = 0,
) -> None:
    """Keep a share of the requests, drawn by the seed."""
    from lodestar.data.workloads.transforms import thin as run
    from lodestar.data.workspace import Workspace
    from lodestar.pipeline.workload_files import Job, changed, workload_tables

    with progress_bar("thin"):
        job = Job(Workspace.open(home), seed, to, format, dataset)
        done = changed(job, source, lambda w: run(w, keep_ratio, seed, groups, below_blocks))
    emit(as_json, done, lambda: workload_tables(done))


@workload_app.command()
def merge(
    source: Source,
    other: Other,
    to: To,
    share_blocks: ShareBlocks = False,
    format: Format = "native",
    dataset: Ingest = None,
    home: Home = None,
    as_json: Json = False,
    seed: Seed = 0,
) -> None:
    """Put two workloads together, at the same time."""
    from lodestar.data.workloads.transforms import merge as run
    from lodestar.data.workspace import Workspace
    from lodestar.pipeline.workload_files import Job, with_other, workload_tables

    with progress_bar("merge"):
        job = Job(Workspace.open(home), seed, to, format, dataset)
        done = with_other(job, (source, other), lambda a, b: run(a, b, share_blocks), share_blocks)
    emit(as_json, done, lambda: workload_tables(done))


@workload_app.command()
def warp(
    source: Source,
    to: To,
    point: Annotated[
        list[str], typer.Option("--point", metavar="FROM:TO", help="A time in seconds and its new one; again for more.")
    ],
    format: Format = "native",
    dataset: Ingest = None,
    home: Home = None,
    as_json: Json = False,
    seed: Seed = 0,
) -> None:
    """Stretch and squeeze time along straight lines through points."""
    from lodestar.data.workloads.transforms import warp as run
    from lodestar.data.workspace import Workspace
    from lodestar.pipeline.workload_files import Job, changed, points_of, workload_tables

    points = points_of(point)
    with progress_bar("warp"):
        done = changed(Job(Workspace.open(home), seed, to, format, dataset), source, lambda w: run(w, points))
    emit(as_json, done, lambda: workload_tables(done))


@workload_app.command()
def scale(
    source: Source,
    to: To,
    factor: Annotated[float, typer.Option("--factor", help="Times the rate.")],
    format: Format = "native",
    dataset: Ingest = None,
    home: Home = None,
    as_json: Json = False,
    seed: Seed = 0,
) -> None:
    """Multiply the rate."""
    from lodestar.data.workloads.transforms import scale_rate
    from lodestar.data.workspace import Workspace
    from lodestar.pipeline.workload_files import Job, changed, workload_tables

    with progress_bar("scale"):
        job = Job(Workspace.open(home), seed, to, format, dataset)
        done = changed(job, source, lambda w: scale_rate(w, factor))
    emit(as_json, done, lambda: workload_tables(done))


@workload_app.command()
def shift(
    source: Source,
    to: To,
    at_s: Annotated[float, typer.Option("--at-s", help="When it shifts.")],
    other: Annotated[
        str | None, typer.Argument(metavar="SOURCE2", help="What goes on from then; or else give --factor.")
    ] = None,
    factor: Annotated[float | None, typer.Option("--factor", help="Times the rate, from then on.")] = None,
    share_blocks: ShareBlocks = False,
    format: Format = "native",
    dataset: Ingest = None,
    home: Home = None,
    as_json: Json = False,
    seed: Seed = 0,
) -> None:
    """Change the rate, or the requests, in the middle of a run."""
    from lodestar.data.workspace import Workspace
    from lodestar.pipeline.workload_files import Job, shifted, workload_tables

    with progress_bar("shift"):
        job = Job(Workspace.open(home), seed, to, format, dataset)
        done = shifted(job, (source, other), at_s, factor, share_blocks)
    emit(as_json, done, lambda: workload_tables(done))


@workload_app.command()
def extend(
    source: Source,
    to: To,
    copies: Annotated[int, typer.Option("--copies", min=1, help="How often it is there in the end.")],
    share_prefixes: Annotated[
        bool, typer.Option("--share-prefixes", help="Copies ask what the first asked, not something new.")
    ] = False,
    period_s: Annotated[
        float | None,
        typer.Option("--period-s", help="From start to start.", show_default="its span and one mean gap"),
    ] = None,
    format: Format = "native",
    dataset: Ingest = None,
    home: Home = None,
    as_json: Json = False,
    seed: Seed = 0,
) -> None:
    """Repeat a workload, one copy after the other."""
    from lodestar.data.workloads.transforms import extend as run
    from lodestar.data.workspace import Workspace
    from lodestar.pipeline.workload_files import Job, changed, workload_tables

    with progress_bar("extend"):
        job = Job(Workspace.open(home), seed, to, format, dataset)
        done = changed(job, source, lambda w: run(w, copies, share_prefixes, period_s))
    emit(as_json, done, lambda: workload_tables(done))
