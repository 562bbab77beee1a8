"""Lodestar's published loop beside what an early one measured: ``python tests/bench/published_arm.py TRACES``.

TRACES holds ``lodestar/sharing09`` and ``lodestar/sharing47``: the same requests under `random` and under `rl`, an
early learned router. Engines are calibrated on `random` alone; `lodestar-published` is replayed on them in closed loop
in several ways, and its TTFT set beside what `rl` measured. `rl` never trained during its run, as its log says: it came
with a network that had been trained before, on what is not known.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from lodestar.data.ingest import ingest
from lodestar.data.reconstruction.arms import arms_of
from lodestar.data.reconstruction.reconstruct import complete_snapshot, workload_of
from lodestar.data.schema import TTFT_MS
from lodestar.data.store import load_log, open_store
from lodestar.data.workspace import Workspace
from lodestar.features.matrix import decision_features
from lodestar.models.dataset import load_training_data
from lodestar.models.network.network import PublishedNetwork
from lodestar.models.rows import Rows
from lodestar.pipeline.online.published import AS_INTENDED, LodestarPublished
from lodestar.pipeline.online.published_learner import Ranges, Trained
from lodestar.pipeline.online.published_run import PublishedRun
from lodestar.pipeline.replay.calibration.calibrate import calibrate
from lodestar.pipeline.replay.cluster import Cluster, Outcome
from lodestar.pipeline.replay.measured import compare_measured
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.policy_settings import declared, read_settings, split_settings
from lodestar.pipeline.replay.window import window_of

SEEDS = range(5)
SHARINGS = ("09", "47")
HEAD = ("log, prefixes by the hits of", "replayed", "mean TTFT ms", "of 5 seeds", "measured `rl`", "error", "P99",
        "measured", "error", "router hits", "measured")  # fmt: skip
ARMS = ("random", "prefix", "rl")
#: More samples than there are requests: the network that there is goes on deciding.
NEVER = 1_000_000

Replay = Callable[[int], Outcome]


def cold(cluster: Cluster, settings: str) -> Replay:
    """Return a replay of the loop that begins with nothing; settings as a user writes them."""
    policy = published(settings)
    return lambda seed: cluster.replay(policy.fresh(), seed=seed)


def trained_before(cluster: Cluster, rows: Rows, settings: str) -> Replay:
    """Return a replay with a network that was trained on a log, one a seed."""
    its = published(settings)

    def replay(seed: int) -> Outcome:
        kept = rows.only(rows.latency_ms <= (its.longest_ms or np.inf))
        network = PublishedNetwork(seed, its.network).fit(kept.features, kept.latency_ms)
        return cluster.replay(PublishedRun(its, Trained(network, Ranges.of(kept.features), len(kept))), seed=seed)

    return replay


def published(settings: str) -> LodestarPublished:
    """Return the policy with settings."""
    _, given = split_settings(f"lodestar-published,{settings}" if settings else "lodestar-published")
    return LodestarPublished(**read_settings("lodestar-published", given, declared(LodestarPublished)))


def variants(cluster: Cluster, rows: Rows) -> dict[str, Replay]:
    """Return what is replayed: name → replay of a seed."""
    frozen = f"min_training_requests={NEVER}"
    return {
        "cold, as the release ran": cold(cluster, ""),
        "cold, first training at 1,000": cold(cluster, "min_training_requests=1000"),
        "cold, as intended": cold(cluster, AS_INTENDED),
        "from `random`, frozen": trained_before(cluster, rows, frozen),
        "the same, no dropout at inference": trained_before(cluster, rows, f"{frozen},dropout_at_inference=false"),
        "the same, no 15 s cut": trained_before(cluster, rows, f"{frozen},longest_ms=0"),
        "the same, exploration 0.1": trained_before(cluster, rows, f"{frozen},exploration=0.1"),
        "from `random`, then online at 1,000": trained_before(cluster, rows, "min_training_requests=1000"),
        "aibrix-prefix-cache": lambda seed: cluster.replay(make_policy("aibrix-prefix-cache"), seed=seed),
    }


def compared(workspace: Workspace, sharing: str, both: bool) -> list[dict[str, Any]]:
    """Return one row a variant, and one for the choices of `rl` itself.

    Args:
        workspace: with the arms.
        sharing: of the workload.
        both: whether the prefixes are inferred from the hits of `random` and `prefix`, or of `random` alone.
    """
    with open_store(workspace) as con:
        log, rl = (load_log(con, f"s{sharing}-{arm}") for arm in ("random", "rl"))
        workload = workload_of(log, 0, arms_of(con, log, [rl]) if both else [])
    rows = load_training_data(workspace, log.dataset, (TTFT_MS,)).rows[TTFT_MS]
    cluster = Cluster.of([calibrate(log, workload).engine] * len(log.instances), workload, names=log.instances)
    outcomes = {name: [replay(seed) for seed in SEEDS] for name, replay in variants(cluster, rows).items()}
    found: list[dict[str, Any]] = compare_measured(log, [rl], cluster, outcomes, SEEDS)["measured"]
    window = window_of(workload).rows
    for row in found:
        row["means"] = [each.ttft_ms[window].mean() for each in outcomes.get(row["policy"], [])]
        row["log"] = f"sharing{sharing}, {'`random` and `prefix`' if both else '`random`'}"
    return found


def agreement(workspace: Workspace, sharing: str, arm: str) -> tuple[float, float]:
    """Return how often an arm chose the network's best instance, and the mean rank of its choice, 0 the best.

    The network is trained on `random`; without quirks, so that it says the same each time.
    """
    with open_store(workspace) as con:
        log = load_log(con, f"s{sharing}-{arm}")
    rows = load_training_data(workspace, f"s{sharing}-random", (TTFT_MS,)).rows[TTFT_MS]
    its = published("dropout_at_inference=false,no_in_flight_at_inference=false").network
    network = PublishedNetwork(0, its).fit(rows.features, rows.latency_ms)
    features = decision_features(log, complete_snapshot(log, workload_of(log))[0])
    n, m, k = features.shape
    reward = network.rewards(features.reshape(-1, k)).reshape(n, m)
    decided = np.flatnonzero(log.chosen >= 0)
    rank = (reward[decided] > reward[decided, log.chosen[decided], None]).sum(axis=1)
    return float((rank == 0).mean()), float(rank.mean())


def line(row: dict[str, Any]) -> str:
    """Return a row as a line of a table."""
    told, true, means = row["predicted_ttft_ms"], row["ttft_ms"], row["means"]
    cells = (
        row["log"], row["policy"], f"{told['mean']:,.0f}", f"{min(means):,.0f} to {max(means):,.0f}" if means else "",
        f"{true['mean']:,.0f}", f"{row['error_mean']:+.1%}", f"{told['p99']:,.0f}", f"{true['p99']:,.0f}",
        f"{row['error_p99']:+.1%}", f"{row['predicted_router_hit_ratio']:.1%}", f"{row['router_hit_ratio']:.1%}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main(traces: Path) -> None:
    """Print the tables."""
    print(f"| {' | '.join(HEAD)} |\n| --- | --- |{' ---: |' * (len(HEAD) - 2)}")
    with TemporaryDirectory() as folder:
        workspace = Workspace.open(Path(folder))
        for sharing, arm in product(SHARINGS, ARMS):
            ingest(workspace, [traces / "lodestar" / f"sharing{sharing}" / f"{arm}.csv.gz"], f"s{sharing}-{arm}")
        for sharing, both in product(SHARINGS, (False, True)):
            for row in compared(workspace, sharing, both):
                print(line(row), flush=True)
        print("\n| log | arm | chose the network's best | mean rank, 0 the best |\n| --- | --- | ---: | ---: |")
        for sharing, arm in product(SHARINGS, ARMS):
            best, rank = agreement(workspace, sharing, arm)
            print(f"| sharing{sharing} | `{arm}` | {best:.1%} | {rank:.2f} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
