"""Time and memory of all one-step estimators with their intervals, on a log of a million decisions that share prefixes.

Run ``python tests/bench/estimation_speed.py [DECISIONS [CANDIDATES]]``.

The baseline, in the same run, is importance weighting as obp writes it: dense arrays of (rounds, actions), the weight
of every round looked up, clipped at infinity, multiplied and averaged; without an interval.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from lodestar.pipeline.estimation.embedding import cells
from lodestar.pipeline.estimation.estimate import estimate
from lodestar.pipeline.estimation.estimators import estimators
from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.one_step import OneStepInput
from lodestar.pipeline.estimation.shared_prefixes import SharedPrefixes

REPEATS: Final = 3
GROUP: Final = 32  # requests that share a prefix, all over the log
TARGET_S: Final = 10.0
TARGET_GIB: Final = 4.0


def made_log(decisions: int, candidates: int, seed: int = 0) -> OneStepInput:
    """Make a log of a softmax over noisy queues, and a policy that looks at queues and hits more keenly."""
    random = np.random.default_rng(seed)
    shape = (decisions, candidates)
    queue = random.poisson(3.0, shape).astype(np.float64)
    hit = np.where(random.random(shape) < 0.3, random.random(shape), 0.0)
    expected = 100.0 + 40.0 * queue - 60.0 * hit
    logging = _softmax(-0.3 * queue + 0.5 * hit)
    target = _softmax(-0.8 * queue + 1.5 * hit)
    column = (random.random((decisions, 1)) > logging.cumsum(axis=1)[:, :-1]).sum(axis=1)
    chosen = np.arange(decisions) * candidates + column
    log = LoggedDecisions(
        cost=expected.reshape(-1)[chosen] * random.gamma(4.0, 0.25, decisions),
        offsets=np.arange(decisions + 1) * candidates,
        chosen=chosen,
        propensity=logging.reshape(-1)[chosen],
        logging=logging.reshape(-1),
        shared=made_groups(decisions, random),
    )
    features = np.stack([queue.reshape(-1), hit.reshape(-1)], axis=1)
    cell = cells(hit.reshape(-1), queue.reshape(-1))
    return OneStepInput(log, target.reshape(-1), 0.9 * expected.reshape(-1), features, cell)


def made_groups(decisions: int, random: np.random.Generator) -> SharedPrefixes:
    """Let requests share prefixes, each group with a prompt length of its own."""
    group = random.permutation(np.arange(decisions) // GROUP)
    return SharedPrefixes(group, random.integers(100, 4000, group.max() + 1)[group])


def _softmax(preference: np.ndarray) -> np.ndarray:
    raised = np.exp(preference)
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def as_obp_does(rows: OneStepInput, candidates: int) -> Callable[[], float]:
    """Return importance weighting over dense arrays, obp's lines."""
    n = rows.log.decisions
    action_dist = rows.target.reshape(n, candidates, 1)
    action, position = rows.log.chosen - rows.log.offsets[:-1], np.zeros(n, dtype=np.int64)

    def run() -> float:
        iw = action_dist[np.arange(n), action, position] / rows.log.propensity
        return float((rows.log.cost * np.minimum(iw, np.inf)).mean())

    return run


def seconds(run: Callable[[], object]) -> float:
    """Return the wall time of one run."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def anew(rows: OneStepInput) -> OneStepInput:
    """Return the same input without what was computed from it."""
    shared = rows.log.shared
    assert shared is not None
    log = replace(rows.log, shared=SharedPrefixes(shared.group, shared.prompt_tokens))
    return OneStepInput(log, rows.target, rows.predicted, rows.features, rows.embedding)


def peak_gib() -> float:
    """Return the largest resident memory of this process so far."""
    status = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in status if line.startswith("VmHWM"))) / 2**20


def main(decisions: int, candidates: int) -> None:
    """Print the table."""
    rows = made_log(decisions, candidates)
    made_gib = peak_gib()
    baseline = statistics.median(seconds(as_obp_does(rows, candidates)) for _ in range(REPEATS))
    took: dict[str, list[float]] = {name: [] for name in estimators()}
    totals = []
    for _ in range(REPEATS):
        shared = anew(rows)
        for name in estimators():
            started = time.perf_counter()
            found = estimate(shared, "softmax", name)
            took[name].append(time.perf_counter() - started)
            if len(took[name]) == REPEATS:
                low, high = found.ci95_ms
                median_s = statistics.median(took[name])
                print(f"{name:10} {found.value_ms:9.3f} ({low:.3f} to {high:.3f}) {median_s:7.3f} s", flush=True)
        totals.append(sum(each[-1] for each in took.values()))
    total = statistics.median(totals)
    print(f"all {len(took)}: {total:.2f} s ({min(totals):.2f}–{max(totals):.2f}); target {TARGET_S:.0f} s")
    print(f"baseline, obp's ipw in NumPy: {baseline:.4f} s; all are {total / baseline:.0f} times that")
    print(f"peak memory {peak_gib():.2f} GiB, of which the log was {made_gib:.2f}; target {TARGET_GIB:.0f} GiB")
    print(
        f"{decisions:,} decisions x {candidates} candidates, {os.cpu_count()} cores, NumPy {np.__version__}, "
        f"Python {platform.python_version()}"
    )


if __name__ == "__main__":
    main(*(int(each) for each in [*sys.argv[1:3], *("1000000", "8")[len(sys.argv) - 1 :]]))
