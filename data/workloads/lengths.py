"""How long things are: distributions of token counts, turns and pauses.

A table names its `distribution`; the values have the unit that the table's name ends in (`prompt_tokens`, `think_s`).
`at_most`, where given, is what larger values are set to. Token counts are rounded to whole numbers, and to at least 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import exp, log, sqrt
from typing import Final, Protocol

import numpy as np

from lodestar.data.errors import ConfigError
from lodestar.data.log import Floats, Workload
from lodestar.data.workloads.tables import require

__all__ = [
    "DISTRIBUTIONS", "LARGEST", "OF_LENGTHS", "Choice", "Constant", "Empirical", "Exponential", "Geometric", "Lengths",
    "Load", "Lognormal", "Uniform",
]  # fmt: skip

Z99: Final = 2.3263478740408408  # the standard normal's 99 % quantile
LARGEST: Final = 1e9
COLUMNS: Final = ("prompt_tokens", "output_tokens")


#: Gives the workload that a source names: a file or a dataset.
Load = Callable[[str], Workload]


class Lengths(Protocol):
    """A distribution."""

    def draw(self, rng: np.random.Generator, count: int, load: Load) -> Floats:
        """Draw values, none below 0."""
        ...


@dataclass(frozen=True, slots=True)
class Constant:
    """Always the same."""

    value: float

    def __post_init__(self) -> None:
        _require_size("value", self.value)

    def draw(self, rng: np.random.Generator, count: int, load: Load) -> Floats:
        """Repeat the value."""
        return np.full(count, self.value)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some values, all as likely or by `weights`."""

    values: tuple[float, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for value in self.values:
            _require_size("values", value)
        weights = self.weights
        if weights is not None:
            same = len(weights) == len(self.values)
            require("weights", list(weights), same, f"{len(self.values)}, one for each of the values")
            usable = min(weights) >= 0 and 0 < sum(weights) < np.inf
            require("weights", list(weights), usable, "none below 0 and one above it")

    def draw(self, rng: np.random.Generator, count: int, load: Load) -> Floats:
        """Choose with replacement."""
        p = None if self.weights is None else np.array(self.weights) / sum(self.weights)
        return rng.choice(np.array(self.values), count, p=p)


@dataclass(frozen=True, slots=True)
class Uniform:
    """Every whole number from `low` to `high`, both included, is as likely."""

    low: int
    high: int

    def __post_init__(self) -> None:
        _require_size("low", self.low)
        require("high", self.high, self.low <= self.high <= LARGEST, f"low, {self.low}, or more")

    def draw(self, rng: np.random.Generator, count: int, load: Load) -> Floats:
        """Draw whole numbers."""
        return rng.integers(self.low, self.high, count, endpoint=True).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Exponential:
    """Exponential with a mean, for pauses."""

    mean: float

    def __post_init__(self) -> None:
        _require_size("mean", self.mean)

    def draw(self, rng: np.random.Generator, count: int, load: Load) -> Floats:
        """Draw values."""
        return rng.exponential(self.mean, count)


@dataclass(frozen=True, slots=True)
class Geometric:
    """Whole numbers from 1 with a mean: after each one, the same chance to stop, 1 / mean."""

    mean: float

    def __post_init__(self) -> None:
        require("mean", self.mean, 1 <= self.mean <= LARGEST, "1 or more")

    def draw(self, rng: np.random.Generator, count: int, load: Load) -> Floats:
        """Draw whole numbers."""
        return rng.geometric(1 / self.mean, count).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Lognormal:
    """Lognormal, told by exactly two of: its mean, median (`p50`), 99 % quantile (`p99`), and the `sigma` of its log.

    With z = 2.326, the standard normal's 99 % quantile: median = exp(mu), p99 = exp(mu + z·sigma), and
    mean = exp(mu + sigma² / 2). Of the two sigmas that give one mean and p99, the smaller is taken.

    >>> Lognormal(mean=300.0, p50=100.0).parameters
    (4.605170185988092, 1.4823038073675112)
    """

    mean: float | None = None
    p50: float | None = None
    p99: float | None = None
    sigma: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        told = {name: getattr(self, name) for name in ("mean", "p50", "p99", "sigma")}
        known = {name: value for name, value in told.items() if value is not None}
        if len(known) != 2:
            raise ConfigError(
                f"lognormal has {', '.join(known) or 'none of its keys'}; "
                f"expected exactly two of {', '.join(told)}. Add or remove keys"
            )
        for name, value in known.items():
            require(name, value, 0 < value <= LARGEST, "more than 0")
        _require_cap(self.at_most)
        _ = self.parameters

    @property
    def parameters(self) -> tuple[float, float]:
        """Return the mean and the standard deviation of the logarithm."""
        sigma = self.sigma if self.sigma is not None else self._sigma()
        if self.p50 is not None:
            return log(self.p50), sigma
        if self.mean is not None:
            return log(self.mean) - sigma**2 / 2, sigma
        return log(self.p99 or 1.0) - Z99 * sigma, sigma

    def _sigma(self) -> float:
        mean, p50, p99 = self.mean, self.p50, self.p99
        if mean is not None and p50 is not None:
            require("mean", mean, mean >= p50, f"at least the median, {p50:g}")
            return sqrt(2 * log(mean / p50))
        low = p50 if p50 is not None else mean or 1.0
        p99 = p99 or 1.0
        require("p99", p99, p99 >= low, f"at least {low:g}")
        if p50 is not None:
            return log(p99 / p50) / Z99
        limit = exp(Z99**2 / 2)
        require("p99", p99, p99 <= limit * low, f"at most {limit:.1f} times the mean, which no lognormal exceeds")
        return Z99 - sqrt(Z99**2 - 2 * log(p99 / low))

    def draw(self, rng: np.random.Generator, count: int, load: Load) -> Floats:
        """Draw values."""
        return _capped(rng.lognormal(*self.parameters, count), self.at_most)


@dataclass(frozen=True, slots=True)
class Empirical:
    """Drawn with replacement from a column of real requests: of a log file, or of an ingested dataset."""

    source: str
    column: str
    at_most: float | None = None

    def __post_init__(self) -> None:
        require("column", self.column, self.column in COLUMNS, " or ".join(COLUMNS))
        _require_cap(self.at_most)

    def draw(self, rng: np.random.Generator, count: int, load: Load) -> Floats:
        """Draw from the column."""
        values = np.asarray(getattr(load(self.source), self.column), dtype=np.float64)
        return _capped(rng.choice(values, count), self.at_most)


#: What `distribution` may name.
DISTRIBUTIONS: Final[Mapping[str, type[Lengths]]] = {
    "constant": Constant,
    "choice": Choice,
    "uniform": Uniform,
    "lognormal": Lognormal,
    "exponential": Exponential,
    "geometric": Geometric,
    "empirical": Empirical,
}
#: What marks a field of a dataclass as a table with a distribution.
OF_LENGTHS: Final = {"key": "distribution", "kinds": DISTRIBUTIONS}


def _capped(values: Floats, at_most: float | None) -> Floats:
    return values if at_most is None else np.minimum(values, at_most)


def _require_size(name: str, value: float) -> None:
    require(name, value, 0 <= value <= LARGEST, f"0 to {LARGEST:.0e}")


def _require_cap(at_most: float | None) -> None:
    require("at_most", at_most, at_most is None or 0 < at_most <= LARGEST, "more than 0")
