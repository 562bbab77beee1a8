"""What a search may choose, and how a choice becomes `Parameters`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import optuna

from lodestar.models.fit import MIN_ROWS
from lodestar.models.parameters import Parameters
from lodestar.models.tuning.groups import GROUPS, RELATIVE, features_of

__all__ = ["Space"]

_INTEGERS: Final = {"num_leaves": (4, 63), "min_data_in_leaf": (10, 200), "rounds": (20, 200)}
_LOG: Final = {"learning_rate": (0.005, 0.1), "lambda_l2": (0.01, 100.0)}
_SHARES: Final = {"feature_fraction": (0.3, 1.0), "bagging_fraction": (0.5, 1.0), "window_share": (0.3, 1.0)}
_USES: Final = "use_"  # and the name of a group of features


@dataclass(frozen=True, slots=True)
class Space:
    """Ranges of numbers, and what there is to choose from on this data.

    Attributes:
        objectives: ways to weigh rows, see `models.objectives`.
        groups: of features, see `groups.GROUPS`; each is on or off.
    """

    objectives: tuple[str, ...]
    groups: tuple[str, ...]

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """Draw every choice of a trial."""
        chosen: dict[str, Any] = {
            name: trial.suggest_int(name, low, high, log=True) for name, (low, high) in _INTEGERS.items()
        }
        chosen |= {name: trial.suggest_float(name, low, high, log=True) for name, (low, high) in _LOG.items()}
        chosen |= {name: trial.suggest_float(name, low, high) for name, (low, high) in _SHARES.items()}
        chosen["objective"] = trial.suggest_categorical("objective", self.objectives)
        chosen["monotone"] = trial.suggest_categorical("monotone", [False, True])
        uses = [f"{_USES}{group}" for group in self.groups]
        return chosen | {name: trial.suggest_categorical(name, [True, False]) for name in uses}

    def defaults(self) -> dict[str, Any]:
        """Return the choice that gives the default parameters.

        >>> Space(("ms",), ("cache", "relative")).defaults()["use_relative"]
        False
        """
        every = Parameters().to_dict()
        plain = {name: every[name] for name in (*_INTEGERS, *_LOG, *_SHARES, "objective", "monotone") if name in every}
        return plain | {"window_share": 1.0} | {f"{_USES}{group}": group != RELATIVE for group in self.groups}

    def parameters(self, chosen: Mapping[str, Any], rows: int) -> Parameters:
        """Turn a choice into parameters for a training on so many rows.

        The share of the window becomes a number of rows, never fewer than can be trained on: each fold has its own, and
        a later training keeps the winner's. On a dataset that has grown since, it is the same number of rows and thus a
        smaller share.

        >>> space = Space(("ms",), tuple(GROUPS))
        >>> space.parameters(space.defaults(), 1000) == Parameters()
        True
        >>> space.parameters(space.defaults() | {"window_share": 0.5}, 1000).window_requests
        500
        """
        share = chosen["window_share"]
        off = frozenset(group for group in GROUPS if not chosen.get(f"{_USES}{group}", group != RELATIVE))
        others = {name: value for name, value in chosen.items() if name != "window_share" and name[:4] != _USES}
        window = None if share >= 1.0 else max(round(share * rows), MIN_ROWS)
        return Parameters(**others, features=features_of(off), window_requests=window)

    def description(self) -> str:
        """Say all that the trials of a study must have in common to be compared."""
        return repr((_INTEGERS, _LOG, _SHARES, self.objectives, self.groups))
