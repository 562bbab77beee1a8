"""What a replay works on: policies, logged traffic, engines and the cluster, checked before anything is replayed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lodestar.data.log import RequestLog, Workload
from lodestar.data.workspace import Workspace
from lodestar.pipeline.replay.chosen_engines import DEFAULT_INSTANCES, Engines, engines_of
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.judging import cluster_as_logged
from lodestar.pipeline.replay.logged_traffic import LoggedTraffic, logged_traffic
from lodestar.pipeline.replay.parallel import AnyPolicy
from lodestar.pipeline.replay.policy_names import find_policy
from lodestar.pipeline.replay.record_targets import Target, record_targets
from lodestar.pipeline.replay.routing.contract import Fleet, Models
from lodestar.pipeline.replay.settings import Settings
from lodestar.pipeline.replay.tuning.parts import Parts, parts_of
from lodestar.pipeline.replay.tuning.text import check_tunable
from lodestar.pipeline.replay.view import RouterView

__all__ = ["Prepared", "Progress", "prepare"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that the stages of a replay share.

    Attributes:
        settings: what was asked for.
        policies: by name, in the order in which they were asked for.
        seeds: of the replays of each.
        baseline: the policy that the others are compared with.
        traffic: the log and its workload.
        engines: of the instances, chosen or calibrated.
        cluster: that the policies are replayed in.
        as_logged: the same engines on as many instances as the log has, whatever is replayed.
        parts: of the traffic, where policies are tuned on one of them; None: they are not.
        records: where replays are kept as decision logs.
    """

    settings: Settings
    policies: Mapping[str, AnyPolicy]
    seeds: range
    baseline: str
    traffic: LoggedTraffic
    engines: Engines
    cluster: Cluster
    as_logged: Cluster
    parts: Parts | None
    records: list[Target]

    @property
    def log(self) -> RequestLog:
        """What was logged."""
        return self.traffic.log

    @property
    def workload(self) -> Workload:
        """The same requests, complete."""
        return self.traffic.workload

    @property
    def fleet(self) -> Fleet:
        """Return the instances of the log, as they were when it was made."""
        engines = self.engines.as_logged
        return Fleet(self.log.instances, [engines[j % len(engines)] for j in range(len(self.log.instances))])

    @property
    def is_changed(self) -> bool:
        """Whether another cluster is replayed than the one that was logged."""
        return bool(self.cluster.events) or self.cluster.engines != self.engines.as_logged


def prepare(
    workspace: Workspace,
    dataset: str,
    settings: Settings,
    models: Models | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Find the policies, load the traffic, and choose or calibrate the engines.

    Whatever can be refused without a look at the traffic is refused first: calibration takes its time.
    """
    policies = {name: find_policy(name, models) for name in settings.policies}
    if settings.tuning:
        check_tunable(policies)
    seeds = range(settings.seed, settings.seed + settings.seeds)
    records = record_targets(settings.record, settings.policies, seeds) if settings.record else []
    traffic = logged_traffic(workspace, dataset, settings)
    calibrating = None if progress is None else lambda done: progress("calibrate", done, 0)
    engines = engines_of(workspace, traffic.log, traffic.workload, settings, calibrating)
    cluster = _cluster(traffic, engines, settings)
    return Prepared(
        settings=settings,
        policies=policies,
        seeds=seeds,
        baseline=settings.baseline or settings.policies[0],
        traffic=traffic,
        engines=engines,
        cluster=cluster,
        as_logged=cluster_as_logged(traffic.log, engines, cluster),
        parts=parts_of(cluster, settings.tuning.ratio, settings.warmup_ratio) if settings.tuning else None,
        records=records,
    )


def _cluster(traffic: LoggedTraffic, engines: Engines, settings: Settings) -> Cluster:
    spec, names = settings.cluster, traffic.log.instances
    instances = settings.instances or spec.size or len(names) or DEFAULT_INSTANCES
    engines_there = engines.of(settings, instances)
    return Cluster.of(engines_there, traffic.workload, spec.view or RouterView(), spec.events, spec.on_failure, names)
