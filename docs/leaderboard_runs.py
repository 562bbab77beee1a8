"""One cell of the leaderboard: train and tune on the first half of the traffic, replay every policy on the second."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from leaderboard_cells import Cell
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.errors import DataError
from lodestar.data.reconstruction.reconstruct import complete_snapshot, workload_of
from lodestar.features.matrix import chosen_features, decision_features
from lodestar.models.fit import fit
from lodestar.models.parameters import Parameters
from lodestar.models.rows import rows_of
from lodestar.pipeline.estimation.intervals.block_bootstrap import expanded_interval
from lodestar.pipeline.estimation.resampling import resampled_means, resamples
from lodestar.pipeline.headline.rivals import mark_of
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.lower_bound import lower_bound_ms as bound_ms
from lodestar.pipeline.replay.policies import POLICIES
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.record import recorded_log
from lodestar.pipeline.replay.routing.contract import Models, Policy
from lodestar.pipeline.replay.tuning.parts import parts_of
from lodestar.pipeline.replay.tuning.study import Search, search
from lodestar.pipeline.replay.tuning.text import policy_text, spaces_of
from lodestar.pipeline.replay.window import WARMUP_RATIO, window_of

REFERENCE: Final = "aibrix-prefix-cache"
#: Marks of what knows the simulation from inside.
NOT_RANKED: Final = ("engines", "oracle")
_BLOCKS: Final = 20  # of consecutive requests that the bootstrap draws together
_ROUNDING_MS: Final = 1e-3

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is replayed.

    Attributes:
        seeds: replays of every policy, default and tuned; the same seeds for all.
        trials: settings that the search tries, the defaults first.
        search_seeds: replays of each trial, under other seeds than the report's.
        draws: of the bootstrap.
    """

    seeds: int = 5
    trials: int = 20
    search_seeds: int = 3
    draws: int = 400


@dataclass(frozen=True, slots=True)
class Replayed:
    """A policy with one choice of its settings, and what came of it on the second half.

    Attributes:
        ttft_ms: of the requests that count, shape (seeds, requests).
        hit_ratio: share of their prompt tokens that an engine's cache held.
    """

    policy: Policy
    variant: str
    ttft_ms: Floats
    hit_ratio: float


def cell_rows(cell: Cell, effort: Effort) -> list[dict[str, Any]]:
    """Return one row a policy and variant of one cell."""
    search_part, report_part, _ = parts_of(cell.cluster, 0.5, WARMUP_RATIO)
    models = trained(search_part)
    lower_ms = lower_bound_ms(report_part, range(effort.seeds))
    replayed: list[Replayed] = []
    for kind in POLICIES:
        default = make_policy(kind.name, models)
        variants = {"default": default}
        if spaces_of(default):
            variants["tuned"] = _tuned(search_part, default, effort)
        for variant, policy in variants.items():
            same = [each for each in replayed if each.policy == policy]
            replayed.append(
                replace(same[0], variant=variant) if same else _replayed(report_part, policy, variant, effort.seeds)
            )
            if (replayed[-1].ttft_ms < lower_ms - _ROUNDING_MS).any():
                raise DataError(f"{kind.name} answers a request of {cell[:3]} sooner than an idle engine would")
    ranked = [mark_of(each.policy) not in NOT_RANKED for each in replayed]
    won = within_noise([each.ttft_ms for each in replayed], ranked, effort.draws)
    return [
        {
            "workload": cell.workload,
            "fleet": cell.fleet,
            "load": cell.load,
            "rate_per_s": cell.rate_per_s,
            "policy": each.policy.name,
            "mark": mark_of(each.policy),
            "variant": each.variant,
            "settings": policy_text("", each.policy).lstrip(","),
            "ttft_mean_ms": float(each.ttft_ms.mean()),
            "ttft_p99_ms": float(np.quantile(each.ttft_ms, 0.99)),
            "hit_ratio": each.hit_ratio,
            "won": its,
            "bound_mean_ms": float(lower_ms.mean()),
        }
        for each, its in zip(replayed, won, strict=True)
    ]


def trained(cluster: Cluster) -> Models:
    """Fit TTFT and TPOT models to a log of the cluster under random routing."""
    policy = make_policy("random")
    log = recorded_log("random", cluster, policy, cluster.replay(policy, seed=0, record=True))
    workload = workload_of(log)
    features = chosen_features(log, decision_features(log, complete_snapshot(log, workload)[0]))
    ttft, tpot = (
        fit(rows_of(log, features, workload.arrived_at_s, target), target, Parameters(), 0, heads=False)[0]
        for target in (schema.TTFT_MS, schema.TPOT_MS)
    )
    return Models.of(ttft, tpot)


def lower_bound_ms(cluster: Cluster, seeds: range) -> Floats:
    """Return TTFTs that no router can beat, one row a seed, of the requests that count."""
    return bound_ms(cluster, seeds)[:, window_of(cluster.workload).first :]


def within_noise(ttft_ms: list[Floats], ranked: list[bool], draws: int) -> list[bool]:
    """Say which means are not above the lowest of the ranked ones, as far as the bootstrap can tell."""
    best = min((each for each, its in zip(ttft_ms, ranked, strict=True) if its), key=np.mean)
    seeds, requests = best.shape
    drawn = resamples(seeds, requests, -(-requests // _BLOCKS), draws)
    return [expanded_interval(resampled_means(each - best, drawn), drawn.starts.shape[1])[0] <= 0 for each in ttft_ms]


def _tuned(cluster: Cluster, policy: Policy, effort: Effort) -> Policy:
    seeds = range(effort.seeds, effort.seeds + effort.search_seeds)
    first = window_of(cluster.workload).first
    return search(Search(cluster, policy, seeds, first, "mean", effort.trials, 0, lambda: None)).policy


def _replayed(cluster: Cluster, policy: Policy, variant: str, seeds: int) -> Replayed:
    first = window_of(cluster.workload).first
    outcomes = [cluster.replay(policy, seed=seed) for seed in range(seeds)]
    cached = np.mean([outcome.cached_tokens[first:].sum() for outcome in outcomes])
    hit_ratio = float(cached / cluster.workload.prompt_tokens[first:].sum())
    return Replayed(policy, variant, np.stack([outcome.ttft_ms[first:] for outcome in outcomes]), hit_ratio)
