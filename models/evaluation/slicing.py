"""The slices in which errors are told: by queue, hit ratio, prompt length and GPU of the chosen instance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.slices import SLICES, load_slice

__all__ = ["Slice", "slices_of"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

UNKNOWN: Final = "unknown"
#: First value of every slice but the first, with the slices' names.
HITS: Final = ((1e-9, 0.25, 0.5, 0.75), ("0", "to 0.25", "to 0.5", "to 0.75", "to 1"))
PROMPTS: Final = ((512.0, 2048.0, 8192.0, 32768.0), ("below 512", "to 2k", "to 8k", "to 32k", "32k and more"))


@dataclass(frozen=True, slots=True)
class Slice:
    """Some of the rows.

    Attributes:
        by: what they are sliced by.
        name: of the slice.
        rows: whether each row is in it, shape (n,).
    """

    by: str
    name: str
    rows: Bools


def slices_of(features: Floats, gpu: Sequence[str] = ()) -> list[Slice]:
    """Return the slices that have rows; every row is in one slice of each kind.

    Args:
        features: of the chosen candidates, shape (n, k).
        gpu: of the chosen instance of each row, '' where it is not known; left out where it is not known for any.

    >>> features = np.full((2, len(FEATURE_NAMES)), np.nan)
    >>> features[:, FEATURE_NAMES.index("prompt_tokens")] = [100.0, 5000.0]
    >>> [f"{of.by} {of.name}" for of in slices_of(features)]
    ['waiting requests unknown', 'hit ratio unknown', 'prompt tokens below 512', 'prompt tokens to 8k']
    """
    found = [
        *_named("waiting requests", SLICES, load_slice(features)),
        *_between("hit ratio", features[:, FEATURE_NAMES.index(schema.HIT_RATIO)], *HITS),
        *_between("prompt tokens", features[:, FEATURE_NAMES.index(schema.PROMPT_TOKENS)], *PROMPTS),
    ]
    if any(gpu):
        names = sorted({name or UNKNOWN for name in gpu})
        found += _named("GPU", names, np.array([names.index(name or UNKNOWN) for name in gpu]))
    return found


def _between(by: str, values: Floats, edges: tuple[float, ...], names: tuple[str, ...]) -> list[Slice]:
    place = np.where(np.isnan(values), len(names), np.searchsorted(edges, values, side="right"))
    return _named(by, (*names, UNKNOWN), place)


def _named(by: str, names: Sequence[str], place: NDArray[np.int64]) -> list[Slice]:
    found = [Slice(by, name, place == number) for number, name in enumerate(names)]
    return [each for each in found if each.rows.any()]
