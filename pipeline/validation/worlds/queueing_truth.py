"""What is true in the queueing world: closed-loop values, one-step values and derivatives, by running it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.replay.parallel import SERIAL, Mapper
from lodestar.pipeline.validation.worlds.queueing import LOGGING, Run, Traffic, World

__all__ = ["ClosedLoop", "closed_loop", "derivative_slopes", "one_step_truth", "warm"]

Floats = NDArray[np.float64]

_WARM_UP: Final = 20  # one request in so many meets queues and caches that were empty
_SPREAD_RATIO: Final = 0.1
_GROWN: Final = 2.0
_SEEDS_RATIO: Final = 0.1
_FIFTHS: Final = 5
#: Of normal values: standard deviation over median deviation, and the error of their median over that of their mean.
_NORMAL_DEVIATION: Final = 1.4826
_NORMAL_MEDIAN: Final = 1.2533


def warm(requests: int) -> slice:
    """Return the requests that count: all but the first twentieth.

    >>> warm(100)
    slice(5, None, None)
    """
    return slice(requests // _WARM_UP, None)


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """A policy that decides on all requests, seed by seed.

    Attributes:
        means_ms: mean TTFT of each seed.
        p99s_ms: 99th percentile of each seed.
        grown: how many times the TTFT of the second fifth of the requests that of the last fifth is, of each seed.
    """

    means_ms: Floats
    p99s_ms: Floats
    grown: Floats

    @property
    def mean_ms(self) -> float:
        """The mean over seeds."""
        return float(self.means_ms.mean())

    @property
    def p99_ms(self) -> float:
        """The mean of the seeds' 99th percentiles."""
        return float(self.p99s_ms.mean())

    @property
    def se_ms(self) -> float:
        """Standard error of the mean."""
        return float(self.means_ms.std(ddof=1) / np.sqrt(len(self.means_ms)))

    @property
    def median_ms(self) -> float:
        """The mean TTFT of the median seed: what a policy that ends now in one state, now in another, mostly does."""
        return float(np.median(self.means_ms))

    @property
    def median_se_ms(self) -> float:
        """Standard error of the median, from the median deviation: what a few seeds of another state do not move."""
        deviation = np.median(np.abs(self.means_ms - self.median_ms))
        return float(_NORMAL_DEVIATION * _NORMAL_MEDIAN * deviation / np.sqrt(len(self.means_ms)))

    @property
    def unstable(self) -> bool:
        """Whether TTFT doubles from early to late requests in a tenth of the seeds: such a queue has no mean."""
        return bool((self.grown > _GROWN).mean() >= _SEEDS_RATIO)

    @property
    def path_dependent(self) -> bool:
        """Whether the means of seeds that met the same arrivals lie apart by a tenth: such a policy has several."""
        return bool(self.means_ms.std(ddof=1) > _SPREAD_RATIO * self.mean_ms)


def closed_loop(
    world: World, traffic: Traffic, policy: str, seeds: Sequence[int], mapper: Mapper = SERIAL
) -> ClosedLoop:
    """Let a policy decide on all requests, once a seed."""

    def of_one(seed: int) -> tuple[float, float, float]:
        ttft_ms = world.run(traffic, policy, seed).ttft_ms[warm(len(traffic.at_ms))]
        fifths = np.array_split(ttft_ms, _FIFTHS)
        return float(ttft_ms.mean()), float(np.quantile(ttft_ms, 0.99)), float(fifths[-1].mean() / fifths[1].mean())

    return ClosedLoop(*np.array(list(mapper.map(of_one, seeds))).T)


def one_step_truth(world: World, traffic: Traffic, run: Run, policy: str) -> float:
    """Return mean Σ π(a|x) E[TTFT | state, a] over the decisions of a run that count: what one-step values claim."""
    values = world.probabilities(traffic, run, policy) * world.expected_ms(traffic, run)
    return float(values.sum(axis=1)[warm(len(run.chosen))].mean())


def derivative_slopes(world: World, traffic: Traffic, policy: str, seeds: Sequence[int], share: float = 0.1) -> Floats:
    """Return how the mean TTFT of each seed follows the share that a policy decides on, at share 0, shape (seeds,).

    The same luck with and without the share; a second run with half of it takes the curvature off:
    2 · (V(share/2) − V(0)) / (share/2) − (V(share) − V(0)) / share.
    """
    counted, slopes = warm(len(traffic.at_ms)), []
    for seed in seeds:
        logging, half, whole = (
            world.run(traffic, LOGGING, seed, other=policy, share=part).ttft_ms[counted].mean()
            for part in (0.0, share / 2, share)
        )
        slopes.append(2 * (half - logging) / (share / 2) - (whole - logging) / share)
    return np.array(slopes)
