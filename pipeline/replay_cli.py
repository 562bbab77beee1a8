"""The commands `calibrate` and `replay`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lodestar.pipeline.console import Dataset, Home, Json, Policies, Seed, emit, progress_bar, say_first_use
from lodestar.pipeline.replay_options import ArrivalsFrom, Baseline, Blocks, SameRequests, Seeds, SloTtftMs, WarmupRatio

__all__ = ["calibrate", "replay"]


def calibrate(
    dataset: Dataset,
    profile: Annotated[
        Path | None, typer.Option("--profile", help="CSV of measured step times to fit to, or to start from.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option("--engine", help="Preset that gives what nothing else tells: see lodestar engines.")
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", help="File to write the engines to as well.")] = None,
    home: Home = None,
    as_json: Json = False,
    seed: Seed = 0,
) -> None:
    """Fit the engines of a cluster to what its dataset holds."""
    say_first_use()
    from lodestar.data.workspace import Workspace
    from lodestar.pipeline.calibrating import calibrate_dataset
    from lodestar.reports.calibration import calibration_tables

    with progress_bar("calibrate") as update:
        found = calibrate_dataset(
            Workspace.open(home), dataset, to, profile, engine, seed, lambda done: update(done=done)
        )
    emit(as_json, found, lambda: calibration_tables(found))


def replay(
    dataset: Dataset,
    policy: Policies,
    seeds: Seeds = 20,
    blocks: Blocks = 12,
    same_requests: SameRequests = False,
    baseline: Baseline = None,
    measured: Annotated[
        list[str] | None,
        typer.Option("--measured", help="Dataset with measured outcomes of the same traffic; again for more."),
    ] = None,
    arrivals_from: ArrivalsFrom = None,
    engine: Annotated[
        str | None,
        typer.Option("--engine", help="Engine preset: see lodestar engines.", show_default="fitted to the log"),
    ] = None,
    engine_from: Annotated[
        str | None,
        typer.Option("--engine-from", help="Dataset, or file, whose calibrated engines to take instead."),
    ] = None,
    kv_capacity_tokens: Annotated[
        int | None,
        typer.Option(
            "--kv-capacity-tokens", min=1, help="Cache of each engine.", show_default="fitted, or the preset's"
        ),
    ] = None,
    instances: Annotated[
        int | None, typer.Option("--instances", min=1, help="Size of the cluster.", show_default="as logged, or 8")
    ] = None,
    cluster: Annotated[
        Path | None, typer.Option("--cluster", help="TOML file with instances, events and the router's view.")
    ] = None,
    view: Annotated[
        str | None,
        typer.Option("--view", help="What the router sees: live, lodestar, aibrix or llm-d.", show_default="live"),
    ] = None,
    event: Annotated[
        list[str] | None,
        typer.Option("--event", help="KIND:INSTANCE@SECONDS: fail, join, leave, slow (with :FACTOR); again for more."),
    ] = None,
    on_failure: Annotated[
        str | None,
        typer.Option("--on-failure", help="Requests of a failed instance: retry or lose.", show_default="retry"),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option("--sweep", help="Vary a setting, such as rate=0.8,1.0,1.2; again for every combination."),
    ] = None,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune",
            help="Search each policy's settings on the first part of the traffic, and compare as named, tuned and "
            "hindsight-best on the rest, in a table of their own; all other tables stay as without it. Settings that "
            "are named are where the search begins.",
        ),
    ] = False,
    tune_trials: Annotated[
        int | None, typer.Option("--tune-trials", min=1, help="Settings to try a policy.", show_default="30")
    ] = None,
    tune_ratio: Annotated[
        float | None,
        typer.Option("--tune-ratio", help="Share of the requests, from the first, to search on.", show_default="0.5"),
    ] = None,
    tune_for: Annotated[
        str | None, typer.Option("--tune-for", help="TTFT to make small: mean or p99.", show_default="mean")
    ] = None,
    record: Annotated[
        str | None, typer.Option("--record", help="Directory or file to write the replays to as decision logs.")
    ] = None,
    warmup_ratio: WarmupRatio = 0.05,
    slo_ttft_ms: SloTtftMs = 2000.0,
    slo_tpot_ms: Annotated[float, typer.Option("--slo-tpot-ms", min=0, help="TPOT that is still good.")] = 200.0,
    home: Home = None,
    as_json: Json = False,
    seed: Seed = 0,
) -> None:
    """Replay the traffic under policies in a calibrated cluster."""
    say_first_use()
    from lodestar.data.workspace import Workspace
    from lodestar.pipeline.replay.cluster_file import described_cluster
    from lodestar.pipeline.replay.policy_names import wants_models
    from lodestar.pipeline.replay.replay import replay as run
    from lodestar.pipeline.replay.settings import Settings
    from lodestar.pipeline.replay.summary import Slo
    from lodestar.pipeline.replay.sweep_points import parse_sweep
    from lodestar.pipeline.replay.tuning.options import tuning_options
    from lodestar.pipeline.trained import trained_models
    from lodestar.reports.result import read_result
    from lodestar.reports.tables import replay_tables

    workspace = Workspace.open(home)
    words = [f"--view {view}"] if view else []
    words += [f"--event {each}" for each in event or ()]
    words += [f"--on-failure {on_failure}"] if on_failure else []
    settings = Settings(
        policies=policy,
        seeds=seeds,
        seed=seed,
        baseline=baseline,
        engine=engine,
        engine_from=engine_from,
        kv_capacity_tokens=kv_capacity_tokens,
        instances=instances,
        slo=Slo(slo_ttft_ms, slo_tpot_ms),
        measured=tuple(measured or ()),
        arrivals_from=arrivals_from,
        warmup_ratio=warmup_ratio,
        blocks=blocks,
        same_requests=same_requests,
        cluster=described_cluster(cluster, view, event or (), on_failure),
        cluster_file=None if cluster is None else str(cluster),
        shorthands=tuple(words),
        sweeps=tuple(parse_sweep(each) for each in sweep or ()),
        record=record,
        tuning=tuning_options(tune, tune_trials, tune_ratio, tune_for),
    )
    with progress_bar("replay") as update:
        models = trained_models(workspace, dataset) if any(map(wants_models, policy)) else None
        done = run(workspace, dataset, settings, models, lambda what, k, n: update(done=k, of=n or None, what=what))
    emit(as_json, done.document, lambda: replay_tables(read_result(done.directory)))
