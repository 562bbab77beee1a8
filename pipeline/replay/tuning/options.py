"""How to tune, as the command line says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from lodestar.data.errors import ConfigError, unknown

__all__ = ["OBJECTIVES", "TuningOptions", "tuning_options"]

#: What can be made as small as possible: the mean of TTFT, or its 99th percentile.
OBJECTIVES: Final = ("mean", "p99")


@dataclass(frozen=True, slots=True)
class TuningOptions:
    """How to search, and on what.

    Attributes:
        trials: settings tried for each policy, its defaults among them.
        ratio: share of the requests, from the first on, that the search sees; the rest is for the report.
        objective: what is made as small as possible, one of `OBJECTIVES`.
    """

    trials: int = 30
    ratio: float = 0.5
    objective: str = "mean"

    def __post_init__(self) -> None:
        """Refuse what can't be searched."""
        if self.trials < 1:
            raise ConfigError(f"--tune-trials is {self.trials}; expected at least 1, the defaults. 30 is usual")
        if not 0 < self.ratio < 1:
            raise ConfigError(f"--tune-ratio is {self.ratio:g}; expected more than 0 and less than 1. 0.5 is usual")
        if self.objective not in OBJECTIVES:
            raise unknown("--tune-for", self.objective, OBJECTIVES)

    @property
    def words(self) -> list[str]:
        """Write them as the command line takes them.

        >>> TuningOptions(trials=50).words
        ['--tune', '--tune-trials 50']
        """
        usual = TuningOptions()._said()
        return ["--tune", *(f"--tune-{name} {value}" for name, value in self._said().items() if value != usual[name])]

    def _said(self) -> dict[str, str]:
        return {"trials": f"{self.trials}", "ratio": f"{self.ratio:g}", "for": self.objective}


def tuning_options(
    tune: bool, trials: int | None = None, ratio: float | None = None, objective: str | None = None
) -> TuningOptions | None:
    """Return how to tune, or None where nothing is to be tuned; then nothing else may be said of it.

    >>> tuning_options(True, ratio=0.7)
    TuningOptions(trials=30, ratio=0.7, objective='mean')
    """
    given: dict[str, Any] = {"trials": trials, "ratio": ratio, "objective": objective}
    said = {name: value for name, value in given.items() if value is not None}
    if said and not tune:
        name = next(iter(said)).replace("objective", "for")
        raise ConfigError(f"--tune-{name} {next(iter(said.values()))} does nothing alone; expected --tune. Add it")
    return TuningOptions(**said) if tune else None
