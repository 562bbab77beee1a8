"""How often the diagnostics raise a false alarm, and find a fault: ``python tests/bench/diagnostics.py [LOGS]``.

Prints verdicts on logs with right propensities, then on logs with each of the known faults, then how long a million
decisions with eight candidates take. Five minutes for 300 logs a row on two cores.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from lodestar.pipeline.estimation.diagnostics import diagnose
from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.one_step import OneStepInput

sys.path.insert(0, str(Path(__file__).parents[1]))

from faulty_logs import FAULTS, world

WORDS = ("usable", "weak", "direct only", "not usable")
RIGHT: tuple[dict[str, Any], ...] = (
    {},
    {"n": 800},
    {"n": 10_000},
    {"sharp": 8.0, "explore": 0.1},
    {"sharp": 40.0},
    {"sharp": -8.0, "keen": 8.0, "explore": 0.01},
)


def word(seed: int, settings: dict[str, Any]) -> tuple[str, float]:
    found = world(seed, **settings).diagnosed()
    return found.verdict.word, found.weights.ess_ratio


def row(pool: ProcessPoolExecutor, logs: int, settings: dict[str, Any]) -> str:
    words, shares = zip(*pool.map(partial(word, settings=settings), range(logs), chunksize=10), strict=True)
    counts = Counter(words)
    told = ", ".join(f"{name} {value}" for name, value in settings.items() if name not in ("fault", "full")) or "–"
    propensities = "all" if settings["full"] else "choice"
    name = settings.get("fault", "right")
    cells = " | ".join(f"{counts[each] / logs:.3f}" for each in WORDS)
    return f"| {name} | {propensities} | {told} | {sum(shares) / logs:.2f} | {cells} |"


def seconds(n: int = 1_000_000, m: int = 8) -> float:
    random = np.random.default_rng(0)
    logging = random.dirichlet(np.ones(m), n) * 0.8 + 0.2 / m
    column = np.minimum((random.random((n, 1)) > logging.cumsum(axis=1)).sum(axis=1), m - 1)
    chosen = np.arange(n) * m + column
    flat = logging.ravel()
    log = LoggedDecisions(random.exponential(size=n), np.arange(0, n * m + 1, m), chosen, flat[chosen], flat)
    rows = OneStepInput(log, random.dirichlet(np.ones(m), n).ravel(), random.exponential(size=n * m))
    buckets = {"load": random.integers(0, 10, n), "time": np.arange(n) * 10 // n}
    start = time.perf_counter()
    diagnose(rows, n // 25, buckets, np.tile(np.arange(m), n))
    return time.perf_counter() - start


def main(logs: int) -> None:
    print("| propensities | logged of | settings | ESS / n | " + " | ".join(WORDS) + " |")
    print("|---|---|---|--:|--:|--:|--:|--:|")
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for full in (True, False):
            for settings in RIGHT:
                print(row(pool, logs, {"full": full, **settings}), flush=True)
        for fault in FAULTS:
            for full in (True, False):
                if full and fault == FAULTS[0]:
                    continue  # probabilities of all candidates that do not sum to 1 are refused
                for n in (2500, 10_000):
                    print(row(pool, logs, {"full": full, "fault": fault, "n": n}), flush=True)
    print(f"\n1,000,000 decisions of 8 candidates: {seconds():.1f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
