"""Estimates from a dataset: one step beside closed loop, or one step alone. What `lodestar estimate` does."""

from __future__ import annotations

from typing import Any, Final

from lodestar.data.errors import DataError
from lodestar.data.workspace import Workspace
from lodestar.pipeline.replay.calibration.files import calibrated_engines
from lodestar.pipeline.replay.estimates.one_step import one_step
from lodestar.pipeline.replay.logged_traffic import logged_traffic
from lodestar.pipeline.replay.policy_names import find_policy
from lodestar.pipeline.replay.prepare import Progress
from lodestar.pipeline.replay.replay import replay
from lodestar.pipeline.replay.routing.contract import Fleet, Models
from lodestar.pipeline.replay.settings import Settings

__all__ = ["estimate_dataset"]

_OF_REPLAY: Final = (
    *("dataset", "command", "baseline", "seeds", "requests", "instances", "slo", "window", "trust", "inferred"),
    "intervals",
    *("one_step", "one_step_differences", "one_step_tails", "one_step_diagnostics", "derivatives", "test"),
    *("one_step_notes", "one_step_blocks", "gap", "gap_notes", "policies"),
)
_ALONE: Final = "no closed loop was asked for: these are no policy's performance"


def estimate_dataset(
    workspace: Workspace,
    dataset: str,
    settings: Settings,
    closed_loop: bool = True,
    models: Models | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Value every policy one step at a time on logged states, and, unless told otherwise, in the closed loop.

    With the closed loop, it is a replay like any other, which `lodestar report` shows. Without, nothing is replayed.

    Args:
        workspace: that holds the dataset.
        dataset: its name.
        settings: policies, baseline, seeds, SLO.
        closed_loop: whether to replay the policies.
        models: for policies that ask a predictor.
        progress: is told of replays.
    """
    if closed_loop:
        document = replay(workspace, dataset, settings, models, progress).document
        return {name: document[name] for name in _OF_REPLAY}
    return _one_step_alone(workspace, dataset, settings, models)


def _one_step_alone(workspace: Workspace, dataset: str, settings: Settings, models: Models | None) -> dict[str, Any]:
    baseline = settings.baseline or settings.policies[0]
    policies = {name: find_policy(name, models) for name in settings.policies}
    traffic = logged_traffic(workspace, dataset, settings)
    log = traffic.log
    fleet = Fleet(log.instances, calibrated_engines(workspace, log))
    steps = one_step(
        traffic,
        policies,
        fleet,
        baseline,
        settings.seed,
        settings.slo.ttft_ms,
        settings.blocks,
        settings.same_requests,
    )
    if not steps.rows and steps.test is None:
        raise DataError(
            f"dataset {dataset!r}: no one-step estimates: {'; '.join(steps.notes)}. See lodestar inspect {dataset}"
        )
    return {
        "dataset": dataset,
        "command": f"{settings.command(dataset, 'estimate')} --one-step-only",
        "baseline": baseline,
        "requests": len(log),
        "instances": len(log.instances),
        "slo": {"ttft_ms": settings.slo.ttft_ms},
        "window": traffic.window.to_dict(),
        "trust": None,
        "inferred": {**traffic.workload.inferred, **steps.inferred},
        **steps.to_dict(),
        "gap": [],
        "gap_notes": [_ALONE],
        "policies": [],
    }
