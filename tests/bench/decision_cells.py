"""Where the decisions are made: workloads × loads × logging policies × seeds, before eight engines."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docs"))

from decision_truth import true_ttft_ms
from leaderboard_cells import recorded, saturation_per_s, synthetic, view

from lodestar.data.log import Workload
from lodestar.data.reconstruction.reconstruct import complete_snapshot, workload_of
from lodestar.data.schema import TTFT_MS
from lodestar.data.workloads.transforms import scale_rate
from lodestar.features.matrix import chosen_features, decision_features
from lodestar.models.engine import EngineModel
from lodestar.models.rows import Rows, rows_of
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.record import recorded_log
from lodestar.pipeline.replay.tuning.parts import parts_of
from lodestar.pipeline.replay.window import WARMUP_RATIO, window_of

__all__ = ["LOADS", "LOGGERS", "SEEDS", "Cell", "Logged", "cells", "logged", "workloads"]

LOADS: Final = (0.5, 0.9)
#: Who made the log to train on: one that takes any instance, and one that prefers some, with known probabilities.
LOGGERS: Final = ("random", "llm-d-weighted-random")
SEEDS: Final = 3
INSTANCES: Final = 8
MOST_REQUESTS: Final = 4000
PRESET: Final = "l40s-llama-3.1-8b"

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Logged:
    """A replay as a log.

    Attributes:
        features: of every candidate, shape (n, m, k).
        rows: of the chosen ones, with their TTFT.
        chosen: shape (n,).
    """

    features: Floats
    rows: Rows
    chosen: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Cell:
    """One cluster before the two halves of one workload, and the log of one policy on the first.

    Attributes:
        load: share of the saturation throughput.
        train: what the models learn from.
        test: the cluster before the second half.
        first: request of the second half from which on they count.
        states: decisions of a random router on the second half, the same for every model and logger.
        true_ms: what every candidate gives in these, shape (n, m).
    """

    workload: str
    load: float
    logger: str
    seed: int
    train: Rows
    test: Cluster
    first: int
    states: Logged
    true_ms: Floats


def workloads(traces: Path | None) -> tuple[dict[str, Workload], EngineModel]:
    """Return the workloads by name, and the engine: recorded ones too, and an engine fitted to them, where at hand."""
    made = {name: each for name, each in synthetic().items() if name in ("synthetic-09", "synthetic-47")}
    if traces is None:
        return made, EngineModel.preset(PRESET)
    found, engine = recorded(traces)
    return made | {name: each.head(MOST_REQUESTS) for name, each in found.items()}, engine


def cells(found: Mapping[str, Workload], engine: EngineModel) -> Iterator[Cell]:
    """Make the cells, one cluster after the other."""
    engines = [engine] * INSTANCES
    for name, workload in found.items():
        own_per_s = len(workload) / float(workload.arrived_at_s[-1])
        most_per_s = saturation_per_s((engines,), workload)
        for load in LOADS:
            at_rate = scale_rate(workload, load * most_per_s / own_per_s)
            train, test, _ = parts_of(Cluster.of(engines, at_rate, view(engines)), 0.5, WARMUP_RATIO)
            first = window_of(test.workload).first
            for seed in range(SEEDS):
                states = logged(test, "random", seed)
                true_ms = true_ttft_ms(test, states.chosen, seed)
                for logger in LOGGERS:
                    rows = logged(train, logger, SEEDS + seed).rows  # other luck than in the second half
                    yield Cell(name, load, logger, seed, rows, test, first, states, true_ms)


def logged(cluster: Cluster, logger: str, seed: int) -> Logged:
    """Replay a policy, and read its log as training does."""
    policy = make_policy(logger)
    log = recorded_log(logger, cluster, policy, cluster.replay(policy, seed=seed, record=True))
    workload = workload_of(log)
    features = decision_features(log, complete_snapshot(log, workload)[0])
    rows = rows_of(log, chosen_features(log, features), workload.arrived_at_s, TTFT_MS)
    return Logged(features, rows, log.chosen)
