"""How a model is grown."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

__all__ = ["MAX_TREES", "Parameters"]

#: Incremental updates stop here and the model is fitted anew: scoring time grows with the trees.
MAX_TREES: Final = 200


@dataclass(frozen=True, slots=True)
class Parameters:
    """LightGBM's parameters and the training window.

    The defaults were chosen by forward-in-time splits of six real logs together, not of one. They are small and shrunk:
    the baseline explains most, and larger trees fitted the load of the training window.

    Attributes:
        rounds: trees of a full fit.
        update_rounds: trees that an incremental update adds.
        window_requests: train on at most this many of the newest rows; None for all.
    """

    num_leaves: int = 15
    min_data_in_leaf: int = 60
    learning_rate: float = 0.02
    lambda_l2: float = 10.0
    feature_fraction: float = 0.7
    bagging_fraction: float = 0.7
    rounds: int = 100
    update_rounds: int = 20
    window_requests: int | None = None

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

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self)
