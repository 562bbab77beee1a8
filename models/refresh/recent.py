"""The newest rows, with what was predicted of each before it was learned from: what refits and the gate need."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.models.latency import QUANTILES, LatencyModel
from lodestar.models.registry.gate_evidence import CHALLENGER, CHAMPION, CONSTANT, LINEAR, Evidence
from lodestar.models.rows import Rows
from lodestar.models.slices import load_slice

__all__ = ["EVIDENCE_ROWS", "RECENT_ROWS", "Recent", "rows_to_keep"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

RECENT_ROWS: Final = 20_000  # kept where the parameters name no window
EVIDENCE_ROWS: Final = 2000  # newest ones that a promotion is judged by

_ROW_FIELDS: Final = (
    "request_index", "features", "latency_ms", "censored", "propensity", "arrived_at_s", "finished_at_s"
)  # fmt: skip
_SAID_FIELDS: Final = ("challenger_ms", "constant_ms", "linear_ms", "quantiles_ms", "own", "learned")


@dataclass(frozen=True, slots=True)
class Recent:
    """Rows in the order in which they became known, (n,), and what was said of them.

    Attributes:
        rows: measured.
        challenger_ms: mean that the newest model predicted at the decision; NaN for rows that it began with.
        constant_ms: of a constant that had learned from the rows before.
        linear_ms: of linear regression that had.
        quantiles_ms: P50, P90 and P99 as the newest model stated them, (n, 3).
        own: whether the newest model was another than the champion then.
        learned: whether the newest model has learned from it.
    """

    rows: Rows
    challenger_ms: Floats
    constant_ms: Floats
    linear_ms: Floats
    quantiles_ms: Floats
    own: Bools
    learned: Bools

    @classmethod
    def learned_from(cls, rows: Rows, most: int) -> Recent:
        """Begin with rows that the model was fitted to."""
        kept = rows.last(most)
        n = len(kept)
        unsaid: Floats = np.full(n, np.nan)
        said = np.full((n, len(QUANTILES)), np.nan)
        return cls(kept, unsaid, unsaid, unsaid, said, np.zeros(n, dtype=np.bool_), np.ones(n, dtype=np.bool_))

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def only(self, keep: Bools) -> Recent:
        """Return the rows where `keep` holds."""
        return Recent(self.rows.only(keep), *(getattr(self, name)[keep] for name in _SAID_FIELDS))

    def last(self, count: int) -> Recent:
        """Return the newest `count` rows."""
        return self.only(np.arange(len(self)) >= len(self) - count)

    def then(self, newer: Recent, most: int) -> Recent:
        """Return these rows and the newer ones, of all the newest `most`, but all that wait to be learned from."""
        joined = {name: np.concatenate([getattr(self, name), getattr(newer, name)]) for name in _SAID_FIELDS}
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(self.rows, name), getattr(newer.rows, name)]) for name in _ROW_FIELDS
        }
        waiting = int((~joined["learned"]).sum())
        both = Recent(replace(newer.rows, **columns), **joined).last(max(most, waiting))
        return replace(both, rows=replace(both.rows, excluded=_left_out(self.rows, newer.rows, both.rows)))

    @property
    def pending(self) -> Rows:
        """The rows that wait to be learned from."""
        return self.rows.only(~self.learned)

    def all_learned(self) -> Recent:
        """Say that the newest model has learned from all of them."""
        return replace(self, learned=np.ones(len(self), dtype=np.bool_))

    @property
    def told(self) -> Bools:
        """Whether a row was predicted and its latency is known, (n,)."""
        return ~np.isnan(self.challenger_ms) & ~self.rows.censored

    def log_residuals(self) -> Floats:
        """Return log(measured / predicted) of every row, oldest first: an error where the row is `told`."""
        ratio: Floats = self.rows.latency_ms / self.challenger_ms
        return np.log(ratio)

    def evidence(self, champion: LatencyModel | None, champion_saw: int) -> Evidence:
        """Return what the gate judges: the newest rows that a model other than the champion predicted.

        Args:
            champion: in use now.
            champion_saw: requests; it predicts those after them.
        """
        judged = self.only(self.own).last(EVIDENCE_ROWS)
        predicted = {CHALLENGER: judged.challenger_ms, CONSTANT: judged.constant_ms, LINEAR: judged.linear_ms}
        if champion is not None:
            unseen = judged.rows.request_index >= champion_saw
            predicted[CHAMPION] = np.full(len(judged), np.nan)
            if unseen.any():
                predicted[CHAMPION][unseen] = champion.predict(judged.rows.features[unseen])
        rows = judged.rows
        return Evidence(rows.latency_ms, rows.censored, load_slice(rows.features), predicted, judged.quantiles_ms)

    def arrays(self) -> dict[str, Any]:
        """Return all columns by name, ready to be saved."""
        return {name: getattr(self.rows, name) for name in _ROW_FIELDS} | {
            name: getattr(self, name) for name in _SAID_FIELDS
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], requests: int, excluded: dict[str, list[int]]) -> Recent:
        """Put together what `arrays` returned."""
        left_out = {why: np.array(at, dtype=np.int64) for why, at in excluded.items()}
        rows = Rows(**{name: arrays[name] for name in _ROW_FIELDS}, requests=requests, excluded=left_out)
        return cls(rows, **{name: arrays[name] for name in _SAID_FIELDS})


def rows_to_keep(parameters: dict[str, Any]) -> int:
    """Return how many rows are kept for a model of these parameters: its window, and enough to judge it by.

    >>> rows_to_keep({"window_requests": None}), rows_to_keep({"window_requests": 50})
    (20000, 2000)
    """
    window = parameters["window_requests"]
    return RECENT_ROWS if window is None else max(window, EVIDENCE_ROWS)


def _left_out(older: Rows, newer: Rows, kept: Rows) -> dict[str, NDArray[np.int64]]:
    """Join what was left out since the first row that is kept."""
    none = np.zeros(0, dtype=np.int64)
    joined = {
        why: np.concatenate([older.excluded.get(why, none), newer.excluded.get(why, none)])
        for why in {**older.excluded, **newer.excluded}
    }
    first = int(kept.request_index[0]) if len(kept) else 0
    return {why: at[at >= first] for why, at in joined.items()}
