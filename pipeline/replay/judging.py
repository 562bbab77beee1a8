"""The verdict on a replay: the engines judged as they were when the log was made, whatever is replayed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from lodestar.data.log import Floats, RequestLog
from lodestar.data.reconstruction.arms import measured_arms_of
from lodestar.data.store import open_store
from lodestar.data.workspace import Workspace
from lodestar.pipeline.replay.calibration.calibrate import FEWEST_REQUESTS, can_calibrate, usable_requests
from lodestar.pipeline.replay.calibration.stretch import TRAINING_SHARE
from lodestar.pipeline.replay.chosen_engines import Engines
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.logged_policy import could_have_given, named_policy
from lodestar.pipeline.replay.parallel import AnyPolicy, Mapper
from lodestar.pipeline.replay.policies.random_choice import RandomChoice
from lodestar.pipeline.replay.routing.contract import Policy
from lodestar.pipeline.replay.trust import Trust, judge, unjudged

__all__ = ["cluster_as_logged", "judged", "judged_as_logged", "logging_policy", "too_few"]

_CHANGED: Final = (
    "the gates judge the cluster as it was logged, and nothing judges instances, engines or events that differ from it"
)


def cluster_as_logged(log: RequestLog, engines: Engines, cluster: Cluster) -> Cluster:
    """Return the engines on as many instances as the log has, whatever is replayed."""
    there = [engines.as_logged[j % len(engines.as_logged)] for j in range(max(1, len(log.instances)))]
    return Cluster.of(there, cluster.workload, cluster.view, names=log.instances)


def judged(
    workspace: Workspace,
    log: RequestLog,
    as_logged: Cluster,
    changed: bool,
    arms: Sequence[RequestLog],
    propensity: Floats,
    policies: Mapping[str, AnyPolicy],
    cores: Mapper,
) -> Trust:
    """Judge the engines as they were when the log was made, whatever is replayed."""
    if not can_calibrate(log):
        return too_few(usable_requests(log))
    trust = judged_as_logged(workspace, log, as_logged, arms, propensity, cores, policies)
    if changed and trust.verdict == "trusted":
        return replace(trust, verdict="not judged", reasons=[_CHANGED])
    return replace(trust, notes=[*trust.notes, _CHANGED]) if changed else trust


def too_few(usable: int) -> Trust:
    """Return the verdict where too few requests could be compared: what they show could be luck."""
    return unjudged(
        f"{usable} requests have a decision and a TTFT among the first {TRAINING_SHARE:.0%}; "
        f"expected at least {FEWEST_REQUESTS} to compare the replay with"
    )


def judged_as_logged(
    workspace: Workspace,
    log: RequestLog,
    as_logged: Cluster,
    arms: Sequence[RequestLog],
    propensity: Floats,
    cores: Mapper,
    policies: Mapping[str, AnyPolicy] | None = None,
) -> Trust:
    """Judge engines on as many instances as the log has, by all that the workspace holds of the same traffic."""
    with open_store(workspace) as con:
        measured = measured_arms_of(con, log)
    made_by = logging_policy(log, propensity)
    trust = judge(log, as_logged, made_by, measured, arms, cores, policies)
    if log.policy and (named := named_policy(log.policy, len(log.instances))) is not None and named != made_by:
        doubt = f"the log names {log.policy}, which cannot have given its propensities: it is not taken for the policy"
        trust = replace(trust, notes=[*trust.notes, doubt])
    if trust.verdict == "untrusted" and "arrivals" in as_logged.workload.inferred and not log.found:
        hint = "arrival times are inferred, which alone can fail a gate: ingest a log that has them, if there is one"
        return replace(trust, reasons=[*trust.reasons, hint])
    return trust


def logging_policy(log: RequestLog, propensity: Floats) -> Policy | None:
    """Return the policy that made the log, where its name, settings and all, or uniform propensities tell it."""
    named = named_policy(log.policy, len(log.instances)) if log.policy else None
    if named is not None and could_have_given(named, log):
        return named
    decided = log.chosen >= 0
    uniform = np.isclose(propensity[decided] * log.candidate[decided].sum(axis=1), 1.0)
    return RandomChoice() if decided.any() and uniform.all() else None
