"""Uniform random routing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.replay.policies.contract import (
    Parameters,
    Rule,
    is_candidate,
    policy_function,
    spread,
)

__all__ = ["RandomChoice"]

Floats = NDArray[np.float64]


@policy_function
def _rule(prompt_tokens: float, snapshot: Floats, parameters: Parameters, probability: Floats) -> None:
    for j in range(len(probability)):
        probability[j] = 1.0 if is_candidate(snapshot, j) else 0.0
    spread(probability)


@dataclass(frozen=True, slots=True)
class RandomChoice:
    """Every candidate with the same probability."""

    name: ClassVar[str] = "random"
    fields: ClassVar[tuple[str, ...]] = ()

    @property
    def rule(self) -> Rule:
        """Return the compiled rule."""
        return _rule

    def parameters(self) -> Parameters:
        """Return no settings."""
        return Parameters.of()
