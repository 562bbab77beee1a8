"""The settings of `lodestar-online`: what an artifact carries and a router obeys."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from lodestar.data.errors import ConfigError, unknown
from lodestar.models.online.learner_settings import LearnerSettings
from lodestar.pipeline.replay.routing.contract import tunable

__all__ = ["HEURISTIC", "OUTSIDE", "PHYSICS", "OnlineSettings"]

#: What decides on a candidate beyond the training ranges: by physics it is worth at least what the tokens ahead and its
#: own take at the known speed.
PHYSICS: Final = "physics"
HEURISTIC: Final = "heuristic"
OUTSIDE: Final = (PHYSICS, "model", HEURISTIC)


@dataclass(frozen=True, slots=True)
class OnlineSettings:
    """How an online router decides and learns.

    Attributes:
        cold_start: policy that decides until there is a model.
        first_fit_requests: see `LearnerSettings`, with the next five.
        ttft_weight: of the predicted TTFT in a candidate's cost.
        tpot_weight: of the predicted TPOT, per output token that is expected.
        e2e_weight: of the predicted E2E, which is TTFT + TPOT · expected output tokens.
        imposed: weight of the delay that the choice imposes on others; 0 is greedy.
        own_share: how much of its own prefill time a request counts with in that delay.
        churn: weight of what it evicts from a cache, which others would have found there.
        slo_ttft_ms: a TTFT that should not be exceeded; 0: none.
        slo_weight: ms that a certain miss costs.
        expected_output_tokens: of an answer, where TPOT or E2E count.
        flush_s: how often a gateway hands over finished requests.
        training_base_s: a training takes, whatever its rows; a model serves after it.
        training_row_ms: it takes for each row.
        exploration: probability of a uniform choice.
        filtered_instances: how many instances a prefix group may go to while caches are full; 0: all.
        saturation_ratio: mean cache usage from which that holds.
        count_uncached: whether the tokens ahead are counted without what is cached of them; false where the models were
            trained on a gateway's own counts.
        progress: whether the first prompt in line counts without what is computed of it, by the model's own speed.
        outside: what decides on a candidate beyond the training ranges: 'physics' (the baseline without trees),
            'model' or 'heuristic' (the cold start, if all candidates are).
    """

    cold_start: str = "least-uncached-tokens"
    first_fit_requests: int = 100
    refit_requests: int = 1000
    refit_s: float = 60.0
    drift: bool = True
    recent_requests: int = 5000
    diverse_requests: int = 1000
    ttft_weight: float = 1.0
    tpot_weight: float = 0.0
    e2e_weight: float = 0.0
    imposed: float = tunable(5.0, 0.0, 10.0)
    own_share: float = tunable(0.25, 0.0, 0.5)
    churn: float = tunable(1.0, 0.0, 3.0)
    slo_ttft_ms: float = 0.0
    slo_weight: float = 1000.0
    expected_output_tokens: float = 100.0
    flush_s: float = 10.0
    training_base_s: float = 1.0
    training_row_ms: float = 0.2
    exploration: float = field(default=0.0, metadata={"most": 1.0})
    filtered_instances: int = 0
    saturation_ratio: float = field(default=0.8, metadata={"most": 1.0})
    count_uncached: bool = True
    progress: bool = True
    outside: str = "physics"

    def __post_init__(self) -> None:
        """Refuse what no router can obey; that the cold start is a policy is seen where it is made."""
        if self.outside not in OUTSIDE:
            raise unknown("outside", self.outside, OUTSIDE)
        for each in fields(self):
            value, most = getattr(self, each.name), each.metadata.get("most", math.inf)
            if each.type == "str" or each.type == "bool":
                continue
            least = 1e-3 if each.name in ("flush_s", "expected_output_tokens") else 0.0
            if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
                told = f"{least:g} or more" if most == math.inf else f"{least:g} to {most:g}"
                raise ConfigError(f"{each.name} is {value!r}; expected a number, {told}. Correct it")

    @property
    def learner(self) -> LearnerSettings:
        """Return the part that says when to learn."""
        names = LearnerSettings.__dataclass_fields__
        return LearnerSettings(**{name: getattr(self, name) for name in names})

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> OnlineSettings:
        """Read what `to_dict` wrote."""
        return cls(**values)
