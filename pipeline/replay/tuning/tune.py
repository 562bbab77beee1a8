"""Tune every policy on the first part of the traffic, and compare what was found on the rest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from lodestar.pipeline.replay.cluster import Cluster, Outcome
from lodestar.pipeline.replay.parallel import SERIAL, AnyPolicy, Mapper, replay_all
from lodestar.pipeline.replay.routing.contract import Policy
from lodestar.pipeline.replay.summary import Slo, summary
from lodestar.pipeline.replay.tuning.options import TuningOptions
from lodestar.pipeline.replay.tuning.parts import Parts
from lodestar.pipeline.replay.tuning.rows import Variant, tuning_rows
from lodestar.pipeline.replay.tuning.study import Found, Search, objective_of, quiet, search
from lodestar.pipeline.replay.tuning.text import check_tunable, policy_text, spaces_of
from lodestar.pipeline.replay.window import WARMUP_RATIO, window_of

__all__ = ["SEARCH_SEEDS", "tune"]

#: Replays of each trial. All trials have the same luck, so that few tell them apart.
SEARCH_SEEDS: Final = 5

Progress = Callable[[str, int, int], None]


def tune(
    parts: Parts,
    policies: Mapping[str, AnyPolicy],
    seeds: range,
    baseline: str,
    verdict: str,
    options: TuningOptions | None = None,
    slo: Slo | None = None,
    warmup_ratio: float = WARMUP_RATIO,
    mapper: Mapper = SERIAL,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Search each policy's settings, and replay the rest of the traffic with and without what was found.

    Args:
        parts: of the workload, as `parts_of` cuts it.
        policies: by name, with the settings that tuning has to beat.
        seeds: of the report; the search has others.
        baseline: the policy that all rows are compared with, as it was named.
        verdict: of the trust gates.
        options: how to search; its ratio made the parts.
        slo: latency targets.
        warmup_ratio: share of the requests of each part that does not count.
        mapper: what runs searches and replays; the result is the same whatever it is.
        progress: told what is done, how much of it, and of how much.

    Returns:
        `tuning`: one flat row a policy and variant; `tuning_how`: what the rows stand on.
    """
    options = options or TuningOptions()
    check_tunable(policies)
    found = _searched(parts, policies, seeds, options, warmup_ratio, mapper, progress)
    tried = [variant for name, policy in policies.items() for variant in _variants(name, policy, found.get(name))]
    outcomes = replay_all(parts.report, {each.settings: each.policy for each in tried}, seeds, mapper, progress)
    variants = _with_hindsight(tried, outcomes, parts.report, options, warmup_ratio)
    reference = policy_text(baseline, policies[baseline])
    told = summary(outcomes, parts.report.workload, reference, slo, warmup_ratio, seeds.start)
    rows = tuning_rows(variants, outcomes, told, options.objective, seeds.start)
    return {
        "tuning": [{**row, "verdict": verdict} for row in rows],
        "tuning_how": {
            "objective": options.objective,
            "trials": options.trials,
            "search_seeds": SEARCH_SEEDS,
            "search_requests": len(parts.search.workload),
            "report_requests": len(parts.report.workload),
            "report_counted": told["window"]["requests"],
            "cut_s": parts.cut_s,
            "seeds": len(seeds),
            "baseline": reference,
            "intervals": told["intervals"]["how"],
        },
    }


class _Told:
    """Counts the trials of searches that run beside each other, and ends them all where one ends early."""

    def __init__(self, of: int, progress: Progress | None) -> None:
        self.done, self.of, self.progress = 0, of, progress
        self.is_over, self.lock = False, threading.Lock()

    def __call__(self) -> None:
        if self.is_over:
            raise KeyboardInterrupt
        with self.lock:
            self.done += 1
            if self.progress:
                self.progress("tune", self.done, self.of)


def _searched(
    parts: Parts,
    policies: Mapping[str, AnyPolicy],
    seeds: range,
    options: TuningOptions,
    warmup_ratio: float,
    mapper: Mapper,
    progress: Progress | None,
) -> dict[str, tuple[Found, Found]]:
    """Search each policy that has settings on the first part, and on the second for what hindsight finds."""
    tunable = {name: policy for name, policy in policies.items() if isinstance(policy, Policy) and spaces_of(policy)}
    told = _Told(2 * len(tunable) * options.trials, progress)
    others = range(seeds.stop, seeds.stop + SEARCH_SEEDS)
    tasks = []
    for part, its_seeds in ((parts.search, others), (parts.report, seeds[:SEARCH_SEEDS])):
        first = window_of(part.workload, warmup_ratio).first
        tasks += [
            Search(part, policy, its_seeds, first, options.objective, options.trials, seeds.start, told)
            for policy in tunable.values()
        ]
    try:
        with quiet():
            found = list(mapper.map(search, tasks))
    finally:
        told.is_over = True
    return dict(zip(tunable, zip(found[: len(tunable)], found[len(tunable) :], strict=True), strict=True))


def _variants(name: str, policy: AnyPolicy, found: tuple[Found, Found] | None) -> list[Variant]:
    variants = [Variant(name, "default", policy_text(name, policy), policy)]
    for kind, its in zip(("tuned", "hindsight"), found or (), strict=False):
        variants.append(Variant(name, kind, policy_text(name, its.policy), its.policy, its.complete, its.pruned))
    return variants


def _with_hindsight(
    variants: list[Variant],
    outcomes: Mapping[str, list[Outcome]],
    cluster: Cluster,
    options: TuningOptions,
    warmup_ratio: float,
) -> list[Variant]:
    """Make hindsight the best of all that was replayed on the second part: it can't be worse than default or tuned.

    Its own search has fewer seeds than the report, so that what it prefers may come second there.
    """
    first = window_of(cluster.workload, warmup_ratio).first

    def value(variant: Variant) -> float:
        ttft_ms = np.stack([run.ttft_ms[first:] for run in outcomes[variant.settings]])
        return objective_of(ttft_ms, options.objective)

    best = []
    for variant in variants:
        if variant.kind == "hindsight":
            rivals = [each for each in variants if each.name == variant.name]
            winner = min(rivals, key=value)
            variant = variant._replace(settings=winner.settings, policy=winner.policy)
        best.append(variant)
    return best
