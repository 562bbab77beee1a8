"""The commands `train` and `tune`."""

from __future__ import annotations

from typing import Annotated

import typer

from lodestar.pipeline.console import Dataset, Home, Json, Seed, emit, progress_bar, say_first_use

__all__ = ["train", "tune"]


def train(
    dataset: Dataset,
    incremental: Annotated[
        bool, typer.Option("--incremental", help="Learn only from what is new; run it from cron as often as you like.")
    ] = False,
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy",
            help="With --incremental: continue, window, refit, or auto, which measures them.",
            show_default="auto",
        ),
    ] = None,
    every: Annotated[
        int | None,
        typer.Option(
            "--every",
            min=1,
            help="With --incremental: new requests to wait for; drift waits for none.",
            show_default="250",
        ),
    ] = None,
    home: Home = None,
    as_json: Json = False,
    seed: Seed = 0,
) -> None:
    """Fit TTFT, TPOT and E2E predictors; what passes the gate is put in use."""
    say_first_use()
    from lodestar.data.errors import ConfigError
    from lodestar.data.workspace import Workspace
    from lodestar.models.refresh.due import EVERY_ROWS
    from lodestar.models.refresh.strategies import AUTO
    from lodestar.models.train import train as run
    from lodestar.reports.training import train_tables

    told = {"--strategy": strategy, "--every": every}
    if not incremental and (given := [name for name, value in told.items() if value is not None]):
        raise ConfigError(f"{given[0]} is about learning from new requests; expected --incremental with it. Add it")
    with progress_bar("train"):
        report = run(
            Workspace.open(home),
            dataset,
            incremental=incremental,
            strategy=strategy or AUTO,
            every=every or EVERY_ROWS,
            seed=seed,
        ).to_dict()
    emit(as_json, report, lambda: train_tables(report))


def tune(
    dataset: Dataset,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Trials in all, with those done before.")] = 20,
    target: Annotated[str, typer.Option("--target", help="ttft_ms, tpot_ms or e2e_ms.")] = "ttft_ms",
    metric: Annotated[
        str, typer.Option("--metric", help="Loss to search by: mae, log, pinball, or regret, which needs propensities.")
    ] = "mae",
    max_decision_us: Annotated[
        float, typer.Option("--max-decision-us", help="Longest time to score 8 candidates, in microseconds.")
    ] = 100.0,
    home: Home = None,
    as_json: Json = False,
    seed: Seed = 0,
) -> None:
    """Tune a predictor with Optuna; resumes where it stopped, in several processes if you like."""
    say_first_use()
    from lodestar.data.workspace import Workspace
    from lodestar.models.tune import tune as run
    from lodestar.reports.tuning_predictors import tune_tables

    with progress_bar("tune", total=trials) as update:
        report = run(Workspace.open(home), dataset, trials, seed, update, target, metric, max_decision_us).to_dict()
    emit(as_json, report, lambda: tune_tables(report))
