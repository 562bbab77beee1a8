"""How often 95 % intervals of a replayed mean hold, by how many seeds were replayed and by what makes them differ.

Each number is of 400 replays of 2,000 requests whose true mean is known: traffic that all seeds share, luck that each
request has under each seed, and luck of a whole run, all with a memory of some ten requests. Below, how often those of
the differences of several policies to one more hold all at once, where runs differ by half of what requests do.

    python tests/bench/seeds.py
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.estimation.intervals.block_bootstrap import expanded_interval, simultaneous_intervals
from lodestar.pipeline.estimation.intervals.replayed import replayed_interval, replayed_intervals
from lodestar.pipeline.estimation.resampling import resampled_means, resamples

Floats = NDArray[np.float64]

REPETITIONS = 400
REQUESTS = 2000
BLOCKS = 20
MEMORY = 0.9
#: What differs → standard deviations of traffic, of luck of each request, of luck of a whole run.
WORLDS = {
    "traffic": (1.0, 0.3, 0.0),
    "luck of each request": (0.3, 1.0, 0.0),
    "all three": (0.5, 0.5, 0.2),
    "luck of whole runs": (0.5, 0.3, 0.5),
}


def remembering(random: np.random.Generator, rows: int) -> Floats:
    """Return noise of variance 1 of which neighbours share most."""
    noise = random.normal(size=(rows, REQUESTS))
    for i in range(1, REQUESTS):
        noise[:, i] = MEMORY * noise[:, i - 1] + np.sqrt(1 - MEMORY**2) * noise[:, i]
    return noise


def held(seeds: int, traffic: float, luck: float, runs: float) -> tuple[float, float]:
    """Return how often intervals hold by the draws alone, and as they are given."""
    plain = given = 0
    for repetition in range(REPETITIONS):
        random = np.random.default_rng(repetition)
        values = traffic * remembering(random, 1) + luck * remembering(random, seeds)
        values = values + runs * random.normal(size=(seeds, 1))
        drawn = resamples(seeds, REQUESTS, REQUESTS // BLOCKS, 400, repetition)
        means = resampled_means(values, drawn)
        low, high = expanded_interval(means, BLOCKS)
        plain += low <= 0 <= high
        if (found := replayed_interval(means, drawn)) is not None:
            given += found[0] <= 0 <= found[1]
    return plain / REPETITIONS, given / REPETITIONS


def held_together(seeds: int, policies: int) -> tuple[float, float]:
    """Return how often all intervals of differences to a baseline hold, by the draws alone, and as they are given."""
    plain = given = 0
    for repetition in range(REPETITIONS):
        random = np.random.default_rng(repetition)
        luck, runs = ((policies + 1, seeds, size) for size in (REQUESTS // 5, 1))
        baseline, *others = random.normal(size=luck) + 0.5 * random.normal(size=runs)
        drawn = resamples(seeds, REQUESTS // 5, REQUESTS // 5 // BLOCKS, 400, repetition)
        differences = [other - baseline for other in others]
        means = np.array([float(each.mean()) for each in differences])
        in_draws = np.stack([resampled_means(each, drawn) for each in differences])
        plain += all(low <= 0 <= high for low, high in simultaneous_intervals(means, in_draws, BLOCKS))
        given += all(
            found is not None and found[0] <= 0 <= found[1] for found in replayed_intervals(means, in_draws, drawn)
        )
    return plain / REPETITIONS, given / REPETITIONS


def main() -> None:
    """Print one row a world, one column a number of seeds."""
    print(f"{'what differs':22}" + "".join(f"{seeds:>14}" for seeds in (1, 2, 3, 5, 10, 20)))
    rows = {name: partial(held, traffic=a, luck=b, runs=c) for name, (a, b, c) in WORLDS.items()}
    rows |= {f"{policies} policies at once": partial(held_together, policies=policies) for policies in (1, 4, 9)}
    for name, of in rows.items():
        found = [of(seeds) for seeds in (1, 2, 3, 5, 10, 20)]
        cells = [f"{plain:.2f} → {given:.2f}" if given else f"{plain:.2f} → none" for plain, given in found]
        print(f"{name:22}" + "".join(f"{cell:>14}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
