"""When requests (or sessions) arrive: endless streams of arrival times, and how much of one is wanted.

Every process has `rate_per_s` as its long-run mean rate. A stream is drawn in pieces from one random generator, so that
the first arrivals are the same however many are wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from lodestar.data.log import Floats
from lodestar.data.workloads.tables import require

__all__ = ["PROCESSES", "Bursts", "Diurnal", "Gamma", "Limit", "Poisson", "Process", "Starts"]

PIECE: Final = 8192
CYCLES: Final = 64


class Process(Protocol):
    """An arrival process: pieces of arrival times from 0, each non-decreasing and after the one before."""

    @property
    def rate_per_s(self) -> float:
        """The long-run mean rate."""
        ...

    def pieces(self, rng: np.random.Generator) -> Iterator[Floats]:
        """Draw arrival times without end."""
        ...


@dataclass(frozen=True, slots=True)
class Poisson:
    """Gaps are exponential and independent: mean 1/rate, coefficient of variation 1.

    >>> next(Poisson(2.0).pieces(np.random.default_rng(0)))[:2].round(3).tolist()
    [0.34, 0.85]
    """

    rate_per_s: float

    def __post_init__(self) -> None:
        _require_rate(self.rate_per_s)

    def pieces(self, rng: np.random.Generator) -> Iterator[Floats]:
        """Add up exponential gaps."""
        yield from _renewal(lambda: rng.exponential(1 / self.rate_per_s, PIECE))


@dataclass(frozen=True, slots=True)
class Gamma:
    """A renewal process whose gaps are gamma distributed: shape 1/cv², mean 1/rate.

    `cv` is the coefficient of variation of the gaps: above 1 they clump, below 1 they are even, at 1 it is Poisson
    (BurstGPT, arXiv 2401.17644, fits production arrivals so).
    """

    rate_per_s: float
    cv: float

    def __post_init__(self) -> None:
        _require_rate(self.rate_per_s)
        require("cv", self.cv, 0 < self.cv <= 100, "more than 0 and at most 100")

    def pieces(self, rng: np.random.Generator) -> Iterator[Floats]:
        """Add up gamma gaps."""
        scale_s = self.cv**2 / self.rate_per_s
        yield from _renewal(lambda: rng.gamma(1 / self.cv**2, scale_s, PIECE))


@dataclass(frozen=True, slots=True)
class Diurnal:
    """A Poisson process whose rate swings: rate · (1 + swing · cos(2π (t − peak) / period)).

    Drawn by thinning (Lewis and Shedler, 1979): candidates at the peak rate, each kept with rate(t) / peak rate.
    """

    rate_per_s: float
    swing_ratio: float
    period_s: float = 86_400.0
    peak_at_s: float = 0.0

    def __post_init__(self) -> None:
        _require_rate(self.rate_per_s)
        require("swing_ratio", self.swing_ratio, 0 <= self.swing_ratio <= 1, "0 to 1")
        require("period_s", self.period_s, 0 < self.period_s < np.inf, "more than 0")
        require("peak_at_s", self.peak_at_s, bool(np.isfinite(self.peak_at_s)), "a time")

    def rate_at(self, at_s: Floats) -> Floats:
        """Return the rate at given times."""
        swing: Floats = self.swing_ratio * np.cos(2 * np.pi * (at_s - self.peak_at_s) / self.period_s)
        return self.rate_per_s * (1 + swing)

    def pieces(self, rng: np.random.Generator) -> Iterator[Floats]:
        """Thin a Poisson process of the peak rate."""
        peak_per_s = self.rate_per_s * (1 + self.swing_ratio)
        for candidates in Poisson(peak_per_s).pieces(rng):
            yield candidates[rng.random(len(candidates)) * peak_per_s < self.rate_at(candidates)]


@dataclass(frozen=True, slots=True)
class Bursts:
    """A Markov-modulated Poisson process of two states, calm and burst (Fischer and Meier-Hellstern, 1993).

    States last exponential times of mean `calm_s` and `burst_s`; in a burst the rate is `burst_factor` times that of
    the calm, and `rate_per_s` is the mean of both. The first state is drawn from the stationary distribution.
    """

    rate_per_s: float
    burst_factor: float
    calm_s: float
    burst_s: float

    def __post_init__(self) -> None:
        _require_rate(self.rate_per_s)
        require("burst_factor", self.burst_factor, 1 <= self.burst_factor < np.inf, "1 or more")
        require("calm_s", self.calm_s, 0 < self.calm_s < np.inf, "more than 0")
        require("burst_s", self.burst_s, 0 < self.burst_s < np.inf, "more than 0")

    @property
    def calm_rate_per_s(self) -> float:
        """The rate between bursts.

        >>> Bursts(rate_per_s=3.0, burst_factor=5.0, calm_s=10.0, burst_s=10.0).calm_rate_per_s
        1.0
        """
        return self.rate_per_s * (self.calm_s + self.burst_s) / (self.calm_s + self.burst_factor * self.burst_s)

    def pieces(self, rng: np.random.Generator) -> Iterator[Floats]:
        """Draw states, the number of arrivals in each, and their times, which are uniform within a state."""
        is_burst = rng.random() * (self.calm_s + self.burst_s) < self.burst_s
        burst = np.resize([is_burst, not is_burst], 2 * CYCLES)
        rate_per_s = np.where(burst, self.burst_factor, 1) * self.calm_rate_per_s
        begun_s = 0.0
        while True:
            lasts_s = rng.exponential(np.where(burst, self.burst_s, self.calm_s))
            ends_s = begun_s + np.cumsum(lasts_s)
            state = np.repeat(np.arange(len(burst)), rng.poisson(rate_per_s * lasts_s))
            yield np.sort(ends_s[state] - rng.random(len(state)) * lasts_s[state])
            begun_s = float(ends_s[-1])


#: What `process` may name.
PROCESSES: Final[Mapping[str, type[Process]]] = {
    "poisson": Poisson,
    "gamma": Gamma,
    "diurnal": Diurnal,
    "bursts": Bursts,
}


@dataclass(frozen=True, slots=True)
class Limit:
    """How much of a stream is wanted: a number of requests, or a stretch of time; one of both."""

    requests: int | None = None
    duration_s: float | None = None


class Starts:
    """A stream of arrival times to take from.

    >>> starts = Starts(Poisson(2.0), np.random.default_rng(0))
    >>> starts.take(2).round(3).tolist(), starts.take(1).round(3).tolist()
    ([0.34, 0.85], [0.86])
    """

    def __init__(self, process: Process, rng: np.random.Generator) -> None:
        self._pieces = process.pieces(rng)
        self._waiting: Floats = np.zeros(0)

    def take(self, count: int) -> Floats:
        """Return the next `count` arrivals."""
        pieces = [self._waiting]
        held = len(self._waiting)
        while held < count:
            pieces.append(next(self._pieces))
            held += len(pieces[-1])
        every = np.concatenate(pieces)
        self._waiting = every[count:]
        return every[:count]

    def until(self, end_s: float) -> Floats:
        """Return the arrivals before a time."""
        pieces = [self._waiting]
        while not len(pieces[-1]) or pieces[-1][-1] < end_s:
            pieces.append(next(self._pieces))
        every = np.concatenate(pieces)
        count = int(np.searchsorted(every, end_s))
        self._waiting = every[count:]
        return every[:count]

    def first(self, limit: Limit) -> Floats:
        """Return as many arrivals as the limit says."""
        return self.until(limit.duration_s) if limit.duration_s is not None else self.take(limit.requests or 0)


def _renewal(gaps: Callable[[], Floats]) -> Iterator[Floats]:
    at_s = 0.0
    while True:
        times: Floats = at_s + np.cumsum(gaps())
        yield times
        at_s = float(times[-1])


def _require_rate(rate_per_s: float) -> None:
    require("rate_per_s", rate_per_s, 0 < rate_per_s < np.inf, "more than 0")
