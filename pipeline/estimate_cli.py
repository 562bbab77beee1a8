"""The command `estimate`."""

from __future__ import annotations

from typing import Annotated

import typer

from lodestar.pipeline.console import Dataset, Home, Json, Policies, Seed, emit, progress_bar, say_first_use
from lodestar.pipeline.replay_options import ArrivalsFrom, Baseline, Blocks, SameRequests, Seeds, SloTtftMs, WarmupRatio

__all__ = ["estimate"]


def estimate(
    dataset: Dataset,
    policy: Policies,
    baseline: Baseline = None,
    one_step_only: Annotated[
        bool, typer.Option("--one-step-only", help="Replay nothing: no closed loop stands beside the numbers.")
    ] = False,
    every_table: Annotated[
        bool,
        typer.Option("--all", help="Print every estimator, tail, derivative and check, and how fields were inferred."),
    ] = False,
    seeds: Seeds = 20,
    blocks: Blocks = 12,
    same_requests: SameRequests = False,
    arrivals_from: ArrivalsFrom = None,
    warmup_ratio: WarmupRatio = 0.05,
    slo_ttft_ms: SloTtftMs = 2000.0,
    home: Home = None,
    as_json: Json = False,
    seed: Seed = 0,
) -> None:
    """Value policies on logged decisions, one step beside closed loop."""
    say_first_use()
    from lodestar.data.workspace import Workspace
    from lodestar.pipeline.estimating import estimate_dataset
    from lodestar.pipeline.replay.policy_names import wants_models
    from lodestar.pipeline.replay.settings import Settings
    from lodestar.pipeline.replay.summary import Slo
    from lodestar.pipeline.trained import trained_models
    from lodestar.reports.estimate_tables import estimate_tables

    workspace = Workspace.open(home)
    settings = Settings(
        policies=policy,
        seeds=seeds,
        seed=seed,
        baseline=baseline,
        slo=Slo(slo_ttft_ms),
        arrivals_from=arrivals_from,
        warmup_ratio=warmup_ratio,
        blocks=blocks,
        same_requests=same_requests,
    )
    with progress_bar("estimate") as update:
        models = trained_models(workspace, dataset) if any(map(wants_models, policy)) else None
        found = estimate_dataset(
            workspace,
            dataset,
            settings,
            not one_step_only,
            models,
            lambda what, k, n: update(done=k, of=n or None, what=what),
        )
    emit(as_json, found, lambda: estimate_tables(found, every_table))
