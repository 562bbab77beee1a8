"""Busy time as rows of a least-squares fit: how long the base engine would have taken, part by part, and its share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lodestar.data import schema as s
from lodestar.models.engine import EngineModel
from lodestar.models.least_squares import Shares, solve

__all__ = ["PARTS", "PARTS_WITHOUT_USAGE", "BusyRows", "Parts", "busy_rows"]

Floats = NDArray[np.float64]
Parts = dict[str, tuple[str, ...]]

#: What statistics can tell of the time → the coefficients that share a multiple, the one that gives its name first.
PARTS: Final[Parts] = {
    "decode_base_ms": ("decode_base_ms", "prefill_base_ms"),
    "decode_sequence_ms": ("decode_sequence_ms", "prefill_sequence_ms"),
    "context_token_ms": ("context_token_ms", "prefill_context_token_ms"),
    "prompt_token_ms": ("prompt_token_ms", "attention_ms"),
}
#: Without cache usage, context is running requests times their mean, and so cannot be told from the sequences.
PARTS_WITHOUT_USAGE: Final[Parts] = {
    "decode_base_ms": PARTS["decode_base_ms"],
    "decode_sequence_ms": (*PARTS["decode_sequence_ms"], *PARTS["context_token_ms"]),
    "prompt_token_ms": PARTS["prompt_token_ms"],
}
#: Short intervals are put together until they hold this many steps: the one that the edges cut off is then 2 %.
STEPS_OF_A_ROW: Final = 50


@dataclass(frozen=True, slots=True)
class BusyRows:
    """Stretches of busy time.

    Attributes:
        shares: of the time of each stretch that each part would take in the base. What they hold near is the one
            multiple of the whole base that fits best.
        owners: the instance of each stretch.
    """

    shares: Shares
    owners: NDArray[np.int64]

    def __len__(self) -> int:
        """Return how many stretches there are."""
        return len(self.shares)

    def slowed(self, factors: NDArray[np.float64]) -> BusyRows:
        """Return the rows as an engine would that takes so many times as long for each."""
        return replace(self, shares=replace(self.shares, values=self.shares.values * factors[:, None]))


def busy_rows(used: pl.DataFrame, base: EngineModel, parts: Parts, prompt: float, output: float) -> BusyRows:
    """Return stretches of enough steps, and the share of their time that each part takes in the base.

    What is cut off at the edge of an interval is counted in the next, so intervals of one engine are put together.
    """
    work = _work(used, base, prompt, output)
    ms = {part: sum(getattr(base, name) * work[name] for name in names) for part, names in parts.items()}
    keys = [name for name in (s.DATASET, s.SOURCE_ID, s.INSTANCE_INDEX) if name in used.columns]
    counted = used.select(*keys, "seconds", "prompt_tokens", ran=pl.col("running") * pl.col("seconds")).with_columns(
        pl.Series("steps", work["steps"]), *(pl.Series(part, values) for part, values in ms.items())
    )
    stretch = (pl.col("steps").cum_sum().over(keys) / STEPS_OF_A_ROW).ceil().alias("stretch")
    summed = counted.group_by(*keys, stretch, maintain_order=True).sum()
    enough = summed.filter(pl.col("steps") >= STEPS_OF_A_ROW / 2)
    shares = enough.select(pl.col(part) / (1000 * pl.col("seconds")) for part in parts).to_numpy()
    running, prompts = (enough[name].to_numpy() / enough["seconds"].to_numpy() for name in ("ran", "prompt_tokens"))
    columns = (running**0, running, 1 / running, prompts, prompts * running, prompts**2)
    instruments = np.column_stack([column / max(float(column.max(initial=0)), 1e-9) for column in columns])
    return BusyRows(_observed(shares, instruments), enough[s.INSTANCE_INDEX].to_numpy())


def _observed(values: Floats, instruments: Floats) -> Shares:
    """Return the rows with a prior that counts as an observation, and so holds what few rows tell."""
    prior = np.full(values.shape[1], 1 / float(values.sum(axis=1).mean()) if len(values) else 1.0)
    shares = Shares(values, prior, instruments)
    error = np.sqrt(((values @ solve(shares) - 1) ** 2).mean()) if len(values) else 1.0
    return replace(shares, row_error=float(error))


def _work(used: pl.DataFrame, base: EngineModel, prompt: float, output: float) -> dict[str, Floats]:
    """Return how much of each coefficient's kind of work the engine did in each interval."""
    running, generated, prompts = (used[name].to_numpy() for name in ("running", "generated", "prompts"))
    computed = prompt * (1 - used["hit"].fill_null(0.0).to_numpy())  # of one prompt
    budget = base.max_batched_tokens
    packed = prompts * computed / budget
    decodes = generated / np.maximum(running, 1)
    steps = np.maximum(decodes, packed) if base.chunked_prefill else decodes + packed
    # Prompts that come at random find a prefill under way or not; they can't fill more than their steps' budget.
    chunks = prompts * np.ceil(np.maximum(computed, 1) / budget)
    prefills = np.minimum(np.maximum(packed, steps * -np.expm1(-chunks / np.maximum(steps, 1e-9))), steps)
    plain = steps - prefills
    mixed = prefills / np.maximum(steps, 1e-9) if base.chunked_prefill else np.zeros(len(steps))
    usage = used["usage_ratio"].cast(pl.Float64).to_numpy()
    context = np.where(np.isnan(usage), running * (prompt + output / 2), usage * base.kv_capacity_tokens)
    return {
        "decode_base_ms": plain,
        "decode_sequence_ms": generated * (1 - mixed),
        "context_token_ms": context * decodes * (1 - mixed),
        "prefill_base_ms": prefills,
        "prompt_token_ms": prompts * computed,
        "prefill_sequence_ms": generated * mixed,
        "prefill_context_token_ms": context * decodes * mixed,
        "attention_ms": prompts * computed * (prompt - computed / 2),
        "steps": steps,
    }
