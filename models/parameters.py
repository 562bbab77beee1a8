"""How a model is grown."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from lodestar.data.errors import ConfigError, unknown
from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.monotone import monotone_constraints

__all__ = ["INPUTS", "MAX_TREES", "Parameters"]

#: Incremental updates stop here and the model is fitted anew: scoring time grows with the trees.
MAX_TREES: Final = 200
#: How loaded the other candidates are is no cause of what this one takes, and changes with the router.
INPUTS: Final = tuple(
    name
    for name in FEATURE_NAMES
    if name not in ("inflight_above_best", "inflight_above_mean", "tokens_above_best", "tokens_above_mean")
)


@dataclass(frozen=True, slots=True)
class Parameters:
    """LightGBM's parameters and the training window.

    The defaults were chosen by forward-in-time splits of six real logs together, not of one. They are small and shrunk:
    the baseline explains most, and larger trees fitted the load of the training window.

    Attributes:
        objective: how rows weigh in the fit of the mean; see `objectives.OBJECTIVES`.
        monotone: whether the trees may never predict less with more queue or more work; see `monotone`.
        features: what the trees see; the baseline has terms of its own.
        rounds: trees of a full fit.
        update_rounds: trees that an incremental update adds.
        window_requests: train on at most this many of the newest rows; None for all (of a window that an incremental
            update fits: the newest 20,000).
    """

    objective: str = "ms"
    monotone: bool = False
    features: tuple[str, ...] = INPUTS
    num_leaves: int = 15
    min_data_in_leaf: int = 60
    learning_rate: float = 0.02
    lambda_l2: float = 10.0
    feature_fraction: float = 0.7
    bagging_fraction: float = 0.7
    rounds: int = 100
    update_rounds: int = 20
    window_requests: int | None = None

    def __post_init__(self) -> None:
        # JSON has no tuples.
        object.__setattr__(self, "features", tuple(self.features))
        if unseen := [name for name in self.features if name not in FEATURE_NAMES]:
            raise unknown("feature", unseen[0], FEATURE_NAMES)
        if not self.features:
            raise ConfigError("features: none; expected one or more. See: lodestar features")

    def lightgbm(self, seed: int) -> dict[str, Any]:
        """Return LightGBM's own dictionary: one thread and fixed orders, so that a seed fixes every byte."""
        return {
            "objective": "l2",
            "num_leaves": self.num_leaves,
            "min_data_in_leaf": self.min_data_in_leaf,
            "learning_rate": self.learning_rate,
            "lambda_l2": self.lambda_l2,
            "feature_fraction": self.feature_fraction,
            "bagging_fraction": self.bagging_fraction,
            "bagging_freq": 1,
            "seed": seed,
            "num_threads": 1,
            "deterministic": True,
            "force_col_wise": True,
            "verbose": -1,
        }

    def mean(self, seed: int) -> dict[str, Any]:
        """Return LightGBM's dictionary for the mean, whose trees alone can be told to be monotone."""
        told = {"monotone_constraints": monotone_constraints(self.features)} if self.monotone else {}
        return self.lightgbm(seed) | told

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self) | {"features": list(self.features)}
