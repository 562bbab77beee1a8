"""What the picks of a model are worth in one step: the loss for which a predictor is tuned to decide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.models.evaluation.decisions import Decisions
from lodestar.models.latency import LatencyModel
from lodestar.models.rivals import linear_rival
from lodestar.models.rows import Rows
from lodestar.models.tuning.losses import Losses

__all__ = ["REGRET", "Regret", "regret_of"]

Floats = NDArray[np.float64]

REGRET: Final = "regret"


@dataclass(frozen=True, slots=True, eq=False)
class Regret:
    """A `Metric`: the latency of the candidates that a model would have picked, as a share of the logged ones' mean.

    Doubly robust (Dudík, Langford and Li 2011): linear regression predicts every candidate, and where the model picks
    what the log picked, its error there counts 1 / propensity fold. The regression is the same for every model, so its
    own errors cancel between two of them, which inverse propensities alone do not: they leave one row in as many as
    there are candidates. One step: queues and caches stay as the log's router left them. The regret is this less what
    the best candidates would have taken, which is the same for every model.

    Attributes:
        features: of every candidate of every request, shape (n, m, k).
        candidate: whether it was one, shape (n, m).
        chosen: by the log, shape (n,).
        name: see `Metric`.
        meaning: see `Metric`.
        heads: see `Metric`.
    """

    features: Floats
    candidate: NDArray[np.bool_]
    chosen: NDArray[np.int64]
    name: str = REGRET
    meaning: str = "latency of what the model picks in % of what the log picked, one step, doubly robust"
    heads: bool = False

    def on(self, earlier: Rows, later: Rows) -> Losses:
        """See `Metric.on`."""
        of, at = later.request_index, np.arange(len(later))
        features, candidate, chosen = self.features[of], self.candidate[of], self.chosen[of]
        flat, shape = features.reshape(-1, features.shape[2]), features.shape[:2]
        linear_ms = linear_rival(earlier, flat).reshape(shape)
        error_ms = (later.latency_ms - linear_ms[at, chosen]) / later.propensity
        mean_ms = float(later.latency_ms.mean())

        def losses(model: LatencyModel) -> Floats:
            picked = np.where(candidate, model.predict(flat).reshape(shape), np.inf).argmin(axis=1)
            value_ms: Floats = linear_ms[at, picked] + np.where(picked == chosen, error_ms, 0.0)
            return value_ms / mean_ms

        return losses


def regret_of(decisions: Decisions, rows: Rows, dataset: str) -> Regret:
    """Return the metric for a log; fails where a row has no propensity."""
    without = int((~(rows.propensity > 0)).sum())
    if without:
        raise DataError(
            f"--metric {REGRET}: {without} of {len(rows)} decisions of dataset {dataset!r} have no propensity; "
            "expected the probability of every logged choice. Use --metric mae, or ingest with --logging-policy random "
            "if all candidates had the same chance"
        )
    return Regret(decisions.features, decisions.candidate, decisions.chosen)
