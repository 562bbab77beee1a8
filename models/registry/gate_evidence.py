"""What a promotion is judged by: predictions of the newest requests by models that had not seen them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.models.latency import LatencyModel
from lodestar.models.registry.current import Trained
from lodestar.models.rivals import constant_rival, linear_rival
from lodestar.models.rows import Rows
from lodestar.models.slices import load_slice

__all__ = ["CHALLENGER", "CHAMPION", "CONSTANT", "LINEAR", "MIN_NEWEST", "Evidence", "evidence_of"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

CHALLENGER: Final = "challenger"
CHAMPION: Final = "champion"
CONSTANT: Final = "constant"
LINEAR: Final = "linear"
MIN_NEWEST: Final = 30  # rows below which nothing is judged
CHANGED: Final = "the dataset's history has changed: the champion may have seen some of them"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Rows in the order in which they arrived, and what was predicted of them.

    Attributes:
        measured_ms: shape (n,).
        censored: whether it is only a lower bound, (n,).
        slices: load slice of each row, as `load_slice` returns them, (n,).
        predicted_ms: 'challenger', 'constant' and 'linear', and 'champion' where there is one → shape (n,); NaN where
            that model has seen the row.
        quantiles_ms: P50, P90 and P99 of the challenger as they were stated when each row arrived, shape (n, 3); None
            for a model without them.
        doubt: what limits the comparison with the champion; empty where nothing does.
    """

    measured_ms: Floats
    censored: Bools
    slices: Ints
    predicted_ms: dict[str, Floats]
    quantiles_ms: Floats | None = None
    doubt: str = ""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.measured_ms)


def evidence_of(
    challenger: LatencyModel,
    training: Rows,
    newest: Rows,
    champion: Trained | None,
    same_history: bool = True,
    quantiles_ms: Floats | None = None,
) -> Evidence:
    """Predict the newest rows by a challenger that has not seen them and by all that it must beat.

    The champion itself predicts the rows that are newer than it; where fewer than `MIN_NEWEST` are (the same data
    again), its twin that was fitted without the newest requests predicts. Without the `same_history` (the dataset no
    longer begins with the requests that the champion has seen) nothing tells which rows are new to it: it predicts all
    of them, which can only favour it, and the evidence says so.

    Args:
        challenger: fitted to `training`.
        training: what the constant and linear regression learn from too.
        newest: rows after them.
        champion: in use now; None where there is none.
        same_history: see above.
        quantiles_ms: P50, P90 and P99 as they were stated, from `calibrate`.
    """
    predicted = {
        CHALLENGER: challenger.predict(newest.features),
        CONSTANT: constant_rival(training, newest.features),
        LINEAR: linear_rival(training, newest.features),
    }
    if champion is not None:
        predicted[CHAMPION] = _champion(champion, newest) if same_history else champion.model.predict(newest.features)
    return Evidence(
        newest.latency_ms,
        newest.censored,
        load_slice(newest.features),
        predicted,
        quantiles_ms,
        "" if same_history else CHANGED,
    )


def _champion(champion: Trained, newest: Rows) -> Floats:
    new = newest.request_index >= champion.record["requests_seen"]
    model = champion.model
    if new.sum() < MIN_NEWEST:
        new, model = newest.request_index >= champion.record["held_out_from"], champion.held_out
    predicted: Floats = np.full(len(newest), np.nan)
    if new.any():
        predicted[new] = model.predict(newest.features[new])
    return predicted
