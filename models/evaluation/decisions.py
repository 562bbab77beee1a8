"""All candidates of a dataset's decisions, beside the rows of the chosen ones that models learn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lodestar.data.log import Floats, Ints, RequestLog
from lodestar.data.reconstruction.latencies import has_no_times
from lodestar.data.reconstruction.reconstruct import complete_snapshot, workload_of
from lodestar.data.schema import GPU, INSTANCE
from lodestar.data.store import load_log, open_store
from lodestar.data.workspace import Workspace
from lodestar.features.matrix import decision_features
from lodestar.models.evaluation.ranking import Choices
from lodestar.models.rows import Rows
from lodestar.models.surface import logged_steps

__all__ = ["Decisions", "load_decisions"]


@dataclass(frozen=True, slots=True)
class Decisions:
    """Every request of a dataset in dispatch order.

    Attributes:
        features: of every candidate, shape (n, m, k).
        candidate: whether instance j was a candidate of request i, shape (n, m).
        chosen: instance index of the decision, shape (n,), -1 where none is logged.
        steps: what can only slow an engine down → the features of the chosen candidates after it, shape (n, k); see
            `lodestar.models.surface`.
        gpu: of each instance, '' where it is not known, length m.
    """

    features: Floats
    candidate: NDArray[np.bool_]
    chosen: Ints
    steps: dict[str, Floats]
    gpu: list[str]

    def gpu_of(self, rows: Rows) -> list[str]:
        """Return the GPU of the instance that each row's request went to, '' where it is not known."""
        return [self.gpu[chosen] for chosen in self.chosen[rows.request_index]]

    def choices(self, rows: Rows) -> Choices:
        """Return the decisions of these rows among which a model could choose: of two candidates or more."""
        at = rows.request_index
        candidate, chosen = self.candidate[at], self.chosen[at]
        judged = (candidate.sum(axis=1) > 1) & candidate[np.arange(len(at)), chosen]
        return Choices(
            self.features[at[judged]],
            candidate[judged],
            chosen[judged],
            rows.latency_ms[judged],
            rows.propensity[judged],
        )


def load_decisions(workspace: Workspace, dataset: str) -> Decisions:
    """Read the candidates of a dataset and compute their features as training does."""
    with open_store(workspace) as con:
        log = load_log(con, dataset)
        known = dict(con.execute(f"SELECT {INSTANCE}, {GPU} FROM instances WHERE dataset = ?", [dataset]).fetchall())
    snapshot = _snapshot(log)
    return Decisions(
        features=decision_features(log, snapshot),
        candidate=log.candidate,
        chosen=log.chosen,
        steps=logged_steps(log, snapshot)[1],
        gpu=[known.get(name) or "" for name in log.instances],
    )


def _snapshot(log: RequestLog) -> dict[str, Floats]:
    return log.snapshot if has_no_times(log) else complete_snapshot(log, workload_of(log))[0]
