"""How often a log of two routers is refused as a test of them: ``python tests/bench/router_tests.py [LOGS]``.

Prints the share of logs without an effect, for fair coins and turns under a load that drifts, and for logs in which the
load chose. Six minutes for 500 logs a row on two busy cores.
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from lodestar.pipeline.replay.estimates.router_test import router_test

sys.path.insert(0, str(Path(__file__).parents[1]))

from two_routers import two_routers

ROWS = (
    ("coin", True),
    ("coin", False),
    ("coin of 1 in 10", True),
    ("turns of 50", True),
    ("turns of 250", True),
    ("coin of turns", True),
    ("0.5 ± 0.05 with load", True),
    ("0.5 ± 0.1 with load", True),
    ("fallback", False),
    ("fallback until it is quiet", False),
)


def refused(seed: int, rule: str, n: int, differ: bool) -> str:
    test, note = router_test(two_routers(seed, rule, n, differ), np.ones(n, dtype=np.bool_))
    return "" if test else note or ""


def main(logs: int) -> None:
    print("| the arm is of | the arms differ | requests | refused | for balance |")
    print("|---|---|--:|--:|--:|")
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for n in (2500, 10_000):
            for place, (rule, differ) in enumerate(ROWS):
                seeds = range(logs * place, logs * (place + 1))
                said = list(pool.map(partial(refused, rule=rule, n=n, differ=differ), seeds, chunksize=5))
                whole, unfair = sum(map(bool, said)) / logs, sum("of fair logs" in each for each in said) / logs
                print(f"| {rule} | {'yes' if differ else 'no'} | {n:,} | {whole:.3f} | {unfair:.3f} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
