"""What a policy is: one small file, settings as fields, a compiled rule that costs every candidate, and a pick.

The same class replays, scores logged decisions and serves. Clock, random numbers and the order of candidates come from
outside; the rule only reads, and what a policy remembers changes as it hears of events.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError
from lodestar.data.jit import LateFunction
from lodestar.models.engine import EngineModel
from lodestar.models.latency import LatencyModel
from lodestar.models.scorer import Scorer, no_scorer, scorer_of
from lodestar.pipeline.replay.routing.compiled import MemoryShape, Parameters, Request, no_notice
from lodestar.pipeline.replay.routing.pick import Pick, draw

if TYPE_CHECKING:
    from lodestar.pipeline.replay.routing.policy_state import PolicyState

__all__ = [
    "ENGINE",
    "MODEL",
    "NOTHING",
    "NO_MODELS",
    "Choice",
    "Fleet",
    "Models",
    "Policy",
    "Space",
    "check_settings",
    "is_setting",
    "model_field",
    "spaces",
    "tunable",
]

Floats = NDArray[np.float64]

#: Who fills `predicted_ms` for the rule: nobody, the latency models that the policy carries, or the engine itself.
NOTHING, MODEL, ENGINE = 0, 1, 2


class Choice(NamedTuple):
    """A decision.

    Attributes:
        instance: the chosen one.
        probability: of every instance, shape (m,); 0 for what is no candidate.
        cost: that the policy gave each, shape (m,); lower is better, inf for what is no candidate.
    """

    instance: int
    probability: Floats
    cost: Floats


class Fleet(NamedTuple):
    """What an operator knows of the instances beforehand.

    Attributes:
        names: one an instance.
        engines: one an instance, where they are known.
    """

    names: Sequence[str]
    engines: Sequence[EngineModel] | None = None

    @classmethod
    def of(cls, engines: Sequence[EngineModel]) -> Fleet:
        """Name instances by their number.

        >>> Fleet.of([EngineModel()] * 2).names
        ['instance-00', 'instance-01']
        """
        return cls([f"instance-{j:02d}" for j in range(len(engines))], engines)


class Models(NamedTuple):
    """Latency models, flattened once for all decisions.

    Attributes:
        ttft: without trees where there is none.
        tpot: the same.
    """

    ttft: Scorer
    tpot: Scorer

    @classmethod
    def of(cls, ttft: LatencyModel | None, tpot: LatencyModel | None = None) -> Models:
        """Flatten them."""
        return cls(*(no_scorer() if model is None else scorer_of(model) for model in (ttft, tpot)))

    @property
    def there(self) -> bool:
        """Say whether there is a TTFT model."""
        return len(self.ttft.leaf_start) > 0


NO_MODELS: Final = Models.of(None)


def model_field() -> Any:
    """Declare the field `models`, which a policy with a predictor has; `make_policy` fills it."""
    return field(default=NO_MODELS, repr=False, compare=False, metadata={"setting": False})


@dataclass(frozen=True, slots=True)
class Space:
    """Where to search for the best value of a setting.

    Attributes:
        low: least value.
        high: greatest value.
        log: whether to search on a logarithmic scale.
        whole: whether only whole numbers are values.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __str__(self) -> str:
        """Say it in words.

        >>> str(Space(1.0, 64.0, log=True, whole=True))
        '1 to 64, whole, logarithmic'
        """
        words = [f"{self.low:g} to {self.high:g}", "whole" if self.whole else "", "logarithmic" if self.log else ""]
        return ", ".join(word for word in words if word)


def tunable(
    default: float, low: float, high: float, *, log: bool = False, whole: bool = False, most: float = math.inf
) -> Any:
    """Declare a setting that `lodestar replay --tune` searches.

    Args:
        default: the peer's.
        low: least value that is searched; a user may set less, but not less than 0.
        high: greatest value that is searched; a user may set more.
        log: whether to search on a logarithmic scale.
        whole: whether only whole numbers are values.
        most: greatest value that makes sense.
    """
    return field(default=default, metadata={"space": Space(low, high, log, whole), "most": most})


class Policy:
    """A routing policy; a subclass is a frozen dataclass whose fields are its settings."""

    __slots__ = ()

    name: ClassVar[str]
    #: Snapshot fields without which the rule can't decide.
    fields: ClassVar[tuple[str, ...]] = ()
    rule: ClassVar[LateFunction]
    notice: ClassVar[LateFunction] = no_notice
    memory: ClassVar[MemoryShape] = MemoryShape()
    #: Who fills `predicted_ms`.
    predictor: ClassVar[int] = NOTHING
    #: Whether the rule needs to know the engines of the fleet.
    needs_engines: ClassVar[bool] = False
    #: Whether it routes by conversation, and does something else for requests that name none.
    needs_sessions: ClassVar[bool] = False

    def pick(self) -> Pick:
        """Say how to pick by cost: the lowest, ties at random, unless a policy says otherwise."""
        return Pick()

    def parameters(self, fleet: Fleet) -> Parameters:
        """Return the settings for the compiled functions."""
        return Parameters.of()

    @property
    def predictors(self) -> Models:
        """Return the models of a policy that has some."""
        models: Models = getattr(self, "models", NO_MODELS)
        return models

    def choose(self, request: Request, snapshot: Floats, state: PolicyState, rng: np.random.Generator) -> Choice:
        """Decide on a request.

        Args:
            request: as `state.request` made it.
            snapshot: what the router knows of every instance, shape (m, len(SNAPSHOT_FIELDS)); NaN: not known.
            state: who the candidates are, in order, and what the policy remembers; it is not changed: tell it with
                `state.sent` where the request went.
            rng: of the draw; one number is taken.

        Raises:
            ConfigError: there is no candidate.
        """
        cost, probability = state.decide(request, snapshot)
        return Choice(draw(probability, rng.random()), probability, cost)


def is_setting(field: Field[Any]) -> bool:
    """Say whether a field of a policy is for users to set."""
    return bool(field.metadata.get("setting", True))


def check_settings(policy: object) -> None:
    """Refuse numbers that no policy can be set to: below 0, or above what a setting says.

    Raises:
        ConfigError: in one line, which, and what was expected.
    """
    found: Any = fields(policy)  # type: ignore[arg-type]
    for each in found:
        value, most = getattr(policy, each.name), each.metadata.get("most", math.inf)
        if isinstance(value, int | float) and not 0.0 <= value <= most:
            expected = "0 or more" if most == math.inf else f"0 to {most:g}"
            raise ConfigError(f"{each.name} is {value:g}; expected {expected}. Correct it")
    if isinstance(policy, Policy):
        policy.pick()


def spaces(policy: type[object]) -> dict[str, Space]:
    """Return the settings that can be tuned, and where."""
    found: Any = fields(policy)  # type: ignore[arg-type]
    return {each.name: each.metadata["space"] for each in found if "space" in each.metadata}
