"""The engines while they are searched for: one set of coefficients, the limits and the slowness of each instance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.calibration.coefficients import engine_at

__all__ = ["Fleet"]

Floats = NDArray[np.float64]

_NEAR: Final = 0.02


@dataclass(frozen=True, slots=True)
class Fleet:
    """The instances of a log.

    Attributes:
        limits: an engine for each instance, of which all but the coefficients hold.
        slowness: log of how many times as long as the typical instance's each one's steps are.
    """

    limits: tuple[EngineModel, ...]
    slowness: Floats

    @classmethod
    def of(cls, engine: EngineModel, instances: int) -> Fleet:
        """Return so many of one engine."""
        return cls((engine,) * instances, np.zeros(instances))

    def at(self, log_coefficients: Floats) -> list[EngineModel]:
        """Return the engines with these coefficients."""
        made = [engine_at(engine, log_coefficients) for engine in self.limits]
        return [
            engine.slowed(float(np.exp(slow))) if slow else engine
            for engine, slow in zip(made, self.slowness, strict=True)
        ]

    def limited(self, **limits: object) -> Fleet:
        """Return the same instances with other limits."""
        return replace(self, limits=tuple(replace(engine, **limits) for engine in self.limits))  # type: ignore[arg-type]

    def each(self, limit: str, values: Sequence[object]) -> Fleet:
        """Return the same instances, each with its own value of one limit."""
        pairs = zip(self.limits, values, strict=True)
        return replace(self, limits=tuple(replace(engine, **{limit: value}) for engine, value in pairs))  # type: ignore[arg-type]

    def resized(self, log_factor: float, fewest: int) -> Fleet:
        """Return the same instances with so much more key-value cache, but no less than `fewest` tokens."""
        factor = float(np.exp(log_factor))
        sizes = [max(fewest, round(engine.kv_capacity_tokens * factor)) for engine in self.limits]
        return self.each("kv_capacity_tokens", sizes)

    def slowed(self, slowness: Floats) -> Fleet:
        """Return the same instances so much slower."""
        return replace(self, slowness=self.slowness + slowness)

    def typical(self, limit: str) -> float:
        """Return the median of a limit."""
        return float(np.median([getattr(engine, limit) for engine in self.limits]))

    def is_near(self, other: Fleet) -> bool:
        """Say whether speeds and capacities are within two percent of another's."""
        sizes = [np.log([engine.kv_capacity_tokens for engine in fleet.limits]) for fleet in (self, other)]
        moved = np.abs(np.concatenate([self.slowness - other.slowness, sizes[0] - sizes[1]]))
        return bool(moved.max() < _NEAR)
