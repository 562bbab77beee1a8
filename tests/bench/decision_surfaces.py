"""Objectives and surfaces on real logs: accuracy on the last 30 %, and where predictions defy physics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar.data.ingest import ingest
from lodestar.data.reconstruction.reconstruct import complete_snapshot, workload_of
from lodestar.data.schema import TTFT_MS
from lodestar.data.store import load_log, open_store
from lodestar.data.workspace import Workspace
from lodestar.models.dataset import load_training_data
from lodestar.models.fit import fit
from lodestar.models.metrics import mae_ms, r2_log
from lodestar.models.objectives import usable_objectives
from lodestar.models.parameters import Parameters
from lodestar.models.rows import Rows
from lodestar.models.surface import logged_steps, row_steps, violations

__all__ = ["Log", "accuracy", "logs", "surfaces"]

Floats = NDArray[np.float64]

SHARE: Final = 0.7
SEEDS: Final = 3
ARMS: Final = {
    f"{sharing}-{arm}": f"lodestar/{sharing}/{arm}.csv.gz"
    for sharing in ("sharing09", "sharing47")
    for arm in ("random", "prefix", "rl")
}
#: Logs that tell of the chosen instance alone.
WITHOUT_CANDIDATES: Final = {
    f"llm-d-{name}": f"llm-d-predictor/{name}-h200.jsonl.gz" for name in ("bimodal", "sharegpt")
}


class Log(NamedTuple):
    """The labelled rows of a log, and what their features are after each step that slows an engine down."""

    rows: Rows
    steps: Mapping[str, Floats]


def logs(traces: Path) -> Iterator[tuple[str, Log]]:
    """Read every log."""
    with TemporaryDirectory() as folder:
        workspace = Workspace.open(Path(folder))
        for name, file in (ARMS | WITHOUT_CANDIDATES).items():
            ingest(workspace, [traces / file], name)
            rows = load_training_data(workspace, name, (TTFT_MS,)).rows[TTFT_MS]
            alone = name in WITHOUT_CANDIDATES
            yield name, Log(rows, row_steps(rows.features) if alone else _steps(workspace, name, rows))


def _steps(workspace: Workspace, name: str, rows: Rows) -> dict[str, Floats]:
    with open_store(workspace) as con:
        log = load_log(con, name)
    _, steps = logged_steps(log, complete_snapshot(log, workload_of(log))[0])
    return {step: after[rows.request_index] for step, after in steps.items()}


def accuracy(found: Mapping[str, Log], ways: Mapping[str, Parameters]) -> list[dict[str, Any]]:
    """Return MAE and R² of log TTFT on the last 30 % of each log by each way that its rows allow, over seeds."""
    lines = []
    for name, (rows, _) in found.items():
        training, held_out = rows.split_share(SHARE)
        usable = usable_objectives(training)
        for way, parameters in ((way, each) for way, each in ways.items() if each.objective in usable):
            fitted = [fit(training, TTFT_MS, parameters, seed, heads=False)[0] for seed in range(SEEDS)]
            told = [model.predict(held_out.features) for model in fitted]
            lines.append(
                {
                    "log": name,
                    "way": way,
                    "mae_ms": float(np.mean([mae_ms(held_out.latency_ms, each) for each in told])),
                    "r2_log": float(np.mean([r2_log(held_out.latency_ms, each) for each in told])),
                }
            )
    return lines


def surfaces(found: Mapping[str, Log], ways: Mapping[str, Parameters]) -> list[dict[str, Any]]:
    """Return where the surfaces, fitted to the first 70 % of each log, defy physics on the last 30 %."""
    lines = []
    for name, (rows, steps) in found.items():
        training, held_out = rows.split_share(SHARE)
        later = np.isin(rows.request_index, held_out.request_index)
        after = {step: each[later] for step, each in steps.items()}
        fitted = {way: fit(training, TTFT_MS, parameters, 0, heads=False)[0] for way, parameters in ways.items()}
        baseline = next(iter(fitted.values())).baseline  # the same for all
        predictors = {"baseline alone": baseline.predict} | {way: model.predict for way, model in fitted.items()}
        for surface, predict in predictors.items():
            lines += [
                {"log": name, "surface": surface} | line for line in violations(predict, held_out.features, after)
            ]
    return lines
