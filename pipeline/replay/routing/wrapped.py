"""A policy whose pick is replaced, so that its choices vary by known chances: ``epsilon:NAME`` and ``softmax:NAME``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from lodestar.data.errors import ConfigError
from lodestar.data.jit import LateFunction
from lodestar.pipeline.replay.routing.compiled import MemoryShape, Parameters
from lodestar.pipeline.replay.routing.contract import Fleet, Models, Policy
from lodestar.pipeline.replay.routing.pick import Pick

__all__ = ["WRAPPERS", "Wrapped", "Wrapper"]


@dataclass(frozen=True, slots=True)
class Wrapper:
    """How one kind of wrapper picks.

    Attributes:
        setting: what its number is called.
        default: the number, unless said otherwise.
        expected: which numbers make sense, in words.
        fits: whether a number does.
        pick: from the inner policy's pick and the number to the new one.
    """

    setting: str
    default: float
    expected: str
    fits: Callable[[float], bool]
    pick: Callable[[Pick, float], Pick]


def _explore(inner: Pick, epsilon: float) -> Pick:
    """Explore on top of what the inner pick explores already."""
    return replace(inner, epsilon=inner.epsilon + (1.0 - inner.epsilon) * epsilon)


def _soften(inner: Pick, temperature: float) -> Pick:
    return replace(inner, temperature=temperature, weighted=False)


#: By the word before the colon.
WRAPPERS: Final = {
    "epsilon": Wrapper("epsilon", 0.1, "above 0 and at most 1", lambda value: 0.0 < value <= 1.0, _explore),
    "softmax": Wrapper("temperature", 0.1, "above 0", lambda value: 0.0 < value < math.inf, _soften),
}


@dataclass(frozen=True, slots=True)
class Wrapped(Policy):
    """Another policy's costs and memory, with a pick of its own.

    ``epsilon``: with this chance any candidate, all alike, else what the inner policy picks.
    ``softmax``: p ∝ exp(-(c - min c) / ((max c - min c) · temperature)) for its costs c. Where the inner policy draws
    by weights, the costs are the negative weights: the heaviest is the likeliest, and the weights themselves no longer
    are the chances.

    Attributes:
        inner: the policy.
        kind: a key of `WRAPPERS`.
        amount: epsilon or temperature.
    """

    inner: Policy
    kind: str
    amount: float

    def __post_init__(self) -> None:
        """Refuse what cannot be wrapped, or so."""
        wrapper = WRAPPERS[self.kind]
        if isinstance(self.inner, Wrapped):
            raise ConfigError(f"{self.name}: a wrapper wraps another; expected one of them. Leave the other out")
        if not wrapper.fits(self.amount):
            raise ConfigError(f"{self.name}: {wrapper.setting} is {self.amount:g}; expected {wrapper.expected}")

    @property
    def name(self) -> str:  # type: ignore[override]
        """Return the kind and the inner name, with a colon between."""
        return f"{self.kind}:{self.inner.name}"

    @property
    def fields(self) -> tuple[str, ...]:  # type: ignore[override]
        """Return what the inner policy can't do without."""
        return self.inner.fields

    @property
    def rule(self) -> LateFunction:  # type: ignore[override]
        """Return the inner rule."""
        return self.inner.rule

    @property
    def notice(self) -> LateFunction:  # type: ignore[override]
        """Return the inner notice."""
        return self.inner.notice

    @property
    def memory(self) -> MemoryShape:  # type: ignore[override]
        """Return the shape of the inner memory."""
        return self.inner.memory

    @property
    def predictor(self) -> int:  # type: ignore[override]
        """Return who predicts for the inner policy."""
        return self.inner.predictor

    @property
    def needs_engines(self) -> bool:  # type: ignore[override]
        """Say whether the inner policy needs to know the engines."""
        return self.inner.needs_engines

    @property
    def needs_sessions(self) -> bool:  # type: ignore[override]
        """Say whether the inner policy routes by conversation."""
        return self.inner.needs_sessions

    @property
    def predictors(self) -> Models:
        """Return the models of the inner policy."""
        return self.inner.predictors

    def parameters(self, fleet: Fleet) -> Parameters:
        """Return the inner settings."""
        return self.inner.parameters(fleet)

    def pick(self) -> Pick:
        """Return the new way to pick."""
        return WRAPPERS[self.kind].pick(self.inner.pick(), self.amount)
