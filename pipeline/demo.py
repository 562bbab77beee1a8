"""Everything once, on a workload made up for it: nothing to download."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from rich.console import Console, Group, RenderableType
from rich.text import Text

from lodestar.data.formats.native import write_decision_log
from lodestar.data.ingest import ingest
from lodestar.data.schema import TTFT_MS
from lodestar.data.workloads.sharing import sharing_workload
from lodestar.data.workspace import Workspace
from lodestar.models.engine import EngineModel
from lodestar.models.registry.current import champions, read_index
from lodestar.models.registry.releases import promote
from lodestar.models.shipping.gate import gate_of, passed_all
from lodestar.models.shipping.ship import ship
from lodestar.models.shipping.write import DEFAULT_POLICY
from lodestar.models.train import train
from lodestar.models.tune import tune
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.record import recorded_log
from lodestar.pipeline.replay.replay import Replay, Settings, replay
from lodestar.pipeline.shipping import policy_of
from lodestar.pipeline.stages import report_latest
from lodestar.pipeline.trained import trained_models
from lodestar.reports.result import read_result
from lodestar.reports.tables import policies_table, verdict_text

__all__ = ["demo", "demo_tables"]

DATASET: Final = "demo"
INSTANCES: Final = 6
RATE_PER_S: Final = 12.0  # keeps six engines two thirds busy under random routing
TRIALS: Final = 8
T = TypeVar("T")

POLICIES: Final = ("random", "least-request", "aibrix-prefix-cache", "learned")


def demo(workspace: Workspace, requests: int, seed: int, console: Console) -> dict[str, Any]:
    """Log a simulated cluster under random routing, then do with the log what a user does with their own."""
    started = time.perf_counter()

    def step(said: str, run: Callable[[], T]) -> T:
        begun = time.perf_counter()
        with console.status(said) if console.is_interactive else nullcontext():
            done = run()
        console.print(f"[green]✓[/] {said} [dim]{time.perf_counter() - begun:.1f} s[/]", highlight=False)
        return done

    path = workspace.home / "demo" / "decisions.jsonl.gz"
    step(f"simulate: {requests} requests on {INSTANCES} engines, routed at random", lambda: _log(path, requests, seed))
    step(f"ingest {path.name}", lambda: ingest(workspace, [path], DATASET))
    trained = step("train TTFT and TPOT predictors", lambda: train(workspace, DATASET, seed=seed))
    step(f"tune: {TRIALS} trials", lambda: tune(workspace, DATASET, TRIALS, seed))
    if TTFT_MS not in champions(workspace, DATASET):
        step(
            "the gate passed no TTFT model on so few requests: promote the newest by hand",
            lambda: promote(workspace, DATASET, targets=[TTFT_MS]),
        )
    replayed: Replay = step(
        f"replay {len(POLICIES)} policies",
        lambda: replay(workspace, DATASET, Settings(list(POLICIES), seed=seed), trained_models(workspace, DATASET)),
    )
    written = step("report", lambda: report_latest(workspace, None))
    artifact = workspace.home / "artifact"
    gated = passed_all(gate_of(read_index(workspace, DATASET)))
    step(
        "ship and check the artifact" + ("" if gated else ", though not all of its models passed the gate"),
        lambda: ship(workspace, DATASET, artifact, policy=policy_of(DEFAULT_POLICY["name"]), ungated=not gated),
    )
    return {
        "seconds": time.perf_counter() - started,
        "train": trained.to_dict(),
        "replay": replayed.document,
        "artifact": str(artifact),
        **written,
    }


def demo_tables(done: dict[str, Any]) -> RenderableType:
    """Draw what the demo found and where it lies."""
    result = read_result(Path(done["directory"]))
    where = Text.assemble(
        ("report    ", "bold"), f"{done['report']}\n",
        ("artifact  ", "bold"), f"{done['artifact']}\n",
        ("MLflow    ", "bold"), f"lodestar ui --home {Path(done['artifact']).parent}\n",
        (f"{done['seconds']:.0f} s in all", "dim"),
        overflow="fold",
    )  # fmt: skip
    return Group(Text(), verdict_text(result), Text(), policies_table(result), Text(), where)


def _log(path: Path, requests: int, seed: int) -> None:
    """Write the decision log of a simulated cluster under uniformly random routing."""
    workload = sharing_workload(requests, RATE_PER_S, 0.5, seed)
    engine = replace(EngineModel.preset("l40s-llama-3.1-8b"), noise_ratio=0.05)
    cluster = Cluster.of([engine] * INSTANCES, workload)
    policy = make_policy("random")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_decision_log(path, recorded_log(DATASET, cluster, policy, cluster.replay(policy, seed=seed, record=True)))
