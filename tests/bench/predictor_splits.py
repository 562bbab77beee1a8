"""What the predictors are trained on and what they are judged by: splits in time, across routers, and by load."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.ingest import ingest
from lodestar.data.schema import TPOT_MS, TTFT_MS
from lodestar.data.workspace import Workspace
from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.dataset import load_training_data
from lodestar.models.evaluation.decisions import Decisions, load_decisions
from lodestar.models.evaluation.ranking import Choices
from lodestar.models.rows import Rows

__all__ = ["Split", "load_splits"]

Floats = NDArray[np.float64]

TRAINING_SHARE = 0.7
ARMS = ("random", "prefix", "rl")
LOADS = ("sharing09", "sharing47")
TARGETS = (TTFT_MS, TPOT_MS)
LLM_D = ("sharegpt-h200", "bimodal-h200")


@dataclass(frozen=True, slots=True)
class Split:
    """One question.

    Attributes:
        target: 'ttft_ms' or 'tpot_ms'.
        kind: 'time', 'router', 'workload' or 'load'.
        name: which log.
        training: rows to learn from.
        testing: rows to be judged by.
        choices: the decisions of `testing` with all their candidates, where the log chose uniformly at random; of TTFT.
    """

    target: str
    kind: str
    name: str
    training: Rows
    testing: Rows
    choices: Choices | None


def load_splits(traces: Path, home: Path) -> list[Split]:
    """Ingest the logs into `home`, and make all splits of them."""
    workspace, rows, decisions = Workspace.open(home), {}, {}
    for name, path in _files(traces).items():
        ingest(workspace, [path], name)
        rows[name] = load_training_data(workspace, name, TARGETS).rows
        if name.endswith("random"):
            decisions[name] = load_decisions(workspace, name)
    return [
        split
        for target in TARGETS
        for split in _splits(
            target,
            {name: by_target[target] for name, by_target in rows.items()},
            decisions if target == TTFT_MS else {},
        )
    ]


def _splits(target: str, rows: dict[str, Rows], decisions: dict[str, Decisions]) -> Iterator[Split]:
    def split(kind: str, shown: str, training: Rows, testing: Rows, log: str) -> Split:
        choices = decisions[log].choices(testing) if log in decisions else None
        return Split(target, kind, shown, training, testing, choices)

    logs = (*(f"{load}-random" for load in LOADS), *LLM_D)
    for log in logs:
        yield split("time", log, *rows[log].split_share(TRAINING_SHARE), log)
    for load in LOADS:
        for arm in ARMS[1:]:
            training, testing = rows[f"{load}-random"], rows[f"{load}-{arm}"]
            yield split("router", f"{load}: random to {arm}", training, testing, f"{load}-{arm}")
    for a, b in (LOADS, LOADS[::-1]):
        yield split("workload", f"{a} to {b}, random", rows[f"{a}-random"], rows[f"{b}-random"], f"{b}-random")
    for log in logs:
        yield split("load", log, *_by_load(rows[log]), log)


def _files(traces: Path) -> dict[str, Path]:
    arms = {f"{load}-{arm}": traces / "lodestar" / load / f"{arm}.csv.gz" for load in LOADS for arm in ARMS}
    return arms | {name: traces / "llm-d-predictor" / f"{name}.jsonl.gz" for name in LLM_D}


def _by_load(rows: Rows) -> tuple[Rows, Rows]:
    """Part the rows at the 70th percentile of the load: requests in flight, else running and waiting ones."""
    inflight, running, waiting = (
        rows.features[:, FEATURE_NAMES.index(name)]
        for name in (schema.INFLIGHT_REQUESTS, schema.RUNNING_REQUESTS, schema.WAITING_REQUESTS)
    )
    load = np.where(np.isnan(inflight), running + waiting, inflight)
    low = load <= np.quantile(load, TRAINING_SHARE)
    return rows.only(low), rows.only(~low)
