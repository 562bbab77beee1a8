"""How many tokens of key-value cache an engine holds, from its own samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

__all__ = ["Capacity", "capacity_of"]

Floats = NDArray[np.float64]

_FEWEST: Final = 5
_KNOWN_RATIO: Final = 0.25
_DRAWS: Final = 200


@dataclass(frozen=True, slots=True)
class Capacity:
    """A capacity in tokens.

    Attributes:
        tokens: of all blocks.
        standard_error: in tokens, by bootstrap over intervals; None where it is not told.
        identified: whether the samples tell it without an assumption on the requests.
        note: how it was found.
    """

    tokens: int
    standard_error: float | None
    identified: bool
    note: str

    @property
    def standard_errors(self) -> dict[str, float]:
        """The standard error by the name of the setting, empty where it is not told."""
        return {} if self.standard_error is None else {"kv_capacity_tokens": self.standard_error}


def capacity_of(intervals: pl.DataFrame, tokens_of_a_request: float, otherwise: int, seed: int = 0) -> Capacity:
    """Infer the capacity from how usage grows, else from usage and running requests, else take `otherwise`.

    While the same requests run and no prompt begins, usage grows by exactly the tokens generated; prefixes that
    requests share do not matter. Otherwise running requests are taken to hold `tokens_of_a_request` each, which
    says too much where they share prefixes, wait for their own prefill, or are longer than the mean.
    """
    steady = intervals.filter(pl.col("steady") & (pl.col("generated") > 0)).drop_nulls("usage_gain_ratio")
    grown, error = _ratio(steady["generated"].to_numpy(), steady["usage_gain_ratio"].to_numpy(), seed)
    if error < _KNOWN_RATIO * grown:
        note = f"from usage that {len(steady)} intervals of the same requests added"
        return Capacity(int(grown), error, True, f"kv_capacity_tokens of {grown:,.0f} ± {error:,.0f} {note}")
    used = intervals.filter((pl.col("running") >= 1) & (pl.col("usage_ratio") > 0))
    held, error = _ratio(used["running"].to_numpy() * tokens_of_a_request, used["usage_ratio"].to_numpy(), seed)
    if np.isfinite(error):
        note = (
            f"if each running request holds {tokens_of_a_request:,.0f} tokens: too many where requests share prefixes"
        )
        return Capacity(int(held), error, False, f"kv_capacity_tokens of about {held:,.0f}, {note} or await prefill")
    return Capacity(otherwise, None, False, f"kv_capacity_tokens of {otherwise:,} is the base's: no usage is logged")


def _ratio(tokens: Floats, usage: Floats, seed: int) -> tuple[float, float]:
    """Return Σ tokens / Σ usage with its standard error; the error is infinite where there is too little."""
    if len(tokens) < _FEWEST or usage.sum() <= 0:
        return np.inf, np.inf
    rows = np.random.default_rng(seed).integers(0, len(tokens), (_DRAWS, len(tokens)))
    below = usage[rows].sum(axis=1)
    if (below <= 0).mean() > 0.02:
        return np.inf, np.inf
    drawn = tokens[rows].sum(axis=1)[below > 0] / below[below > 0]
    return float(tokens.sum() / usage.sum()), float(drawn.std(ddof=1))
