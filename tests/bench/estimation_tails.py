"""How right the tails of one-step estimation are, and how fast: quantiles by three estimators against a known truth.

Run ``python tests/bench/estimation_tails.py [REPETITIONS]``; 100 are the default, and take some minutes.

The world: six instances whose queues come and go over some 60 requests, whatever is decided, so that the one-step truth
is known; prompts and speeds differ, a prefix hit shortens the prefill, and the noise of a cost grows with its queue.
Two models foretell costs: one to 5 %, the other blind to prefix hits.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.special import ndtr

from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.one_step import OneStepInput
from lodestar.pipeline.estimation.tails import TailEstimate, tail_measures

Floats = NDArray[np.float64]
Say = Callable[[list[TailEstimate], float], str]

INSTANCES, DECISIONS, BLOCKS, MEMORY = 6, 19_000, 25, 60
SLO_MS = 300.0
MEASURES = ("p50", "p90", "p99", "cvar90", "cvar99", "slo")
POPULATION = 1_000_000
MODELS = ("to 5 %", "blind to hits")


@dataclass(frozen=True, slots=True)
class States:
    """What every decision met: log-mean and log-sd of the cost of each instance, queues and hits, shape (n, 6)."""

    log_mean: Floats
    log_sd: Floats
    queue: Floats
    hit: NDArray[np.bool_]


def states(random: np.random.Generator, n: int, memory: float) -> States:
    """Draw states whose queues forget half of themselves within a few `memory` decisions; 0: none has any."""
    kept = np.exp(-1 / memory) if memory else 0.0
    shock = random.normal(size=(n, INSTANCES)) * np.sqrt(1 - kept**2)
    shock[0] /= np.sqrt(1 - kept**2)
    queue = np.exp(0.9 * lfilter([1.0], [1.0, -kept], shock, axis=0) + 0.3)
    prefill_ms = 100 * np.exp(random.normal(0, 0.8, (n, 1))) / np.linspace(0.7, 1.4, INSTANCES)
    hit = random.random((n, INSTANCES)) < 0.15
    return States(np.log(prefill_ms * np.where(hit, 0.35, 1.0) + 60 * queue), 0.15 + 0.12 * np.log1p(queue), queue, hit)


def targets(met: States) -> dict[str, Floats]:
    """Return the probabilities that each policy gives, shape (n, 6)."""
    score = {
        "least queue": np.log1p(met.queue),
        "affinity and load": np.log1p(met.queue) - 1.5 * met.hit,
        "fastest instance": np.tile(-np.arange(INSTANCES), (len(met.queue), 1)),
    }
    greedy = {name: (each == each.min(axis=1)[:, None]).astype(float) for name, each in score.items()}
    return {"uniform": np.full(met.queue.shape, 1 / INSTANCES), **greedy}


def logged(seed: int, blind: bool) -> tuple[LoggedDecisions, Floats, dict[str, Floats]]:
    """Log decisions of a policy that prefers short queues and hits; return them, predictions and targets."""
    random = np.random.default_rng(seed)
    met = states(random, DECISIONS, MEMORY)
    preference = np.exp((0.7 * met.hit - np.log1p(met.queue)) / 0.7)
    logging = 0.7 * preference / preference.sum(axis=1)[:, None] + 0.3 / INSTANCES
    column = (random.random((DECISIONS, 1)) > logging.cumsum(axis=1)[:, :-1]).sum(axis=1)
    rows = np.arange(DECISIONS)
    cost_ms = np.exp(met.log_mean + met.log_sd * random.normal(size=met.queue.shape))[rows, column]
    offsets, chosen = np.arange(DECISIONS + 1) * INSTANCES, rows * INSTANCES + column
    log = LoggedDecisions(cost_ms, offsets, chosen, logging[rows, column], logging.ravel())
    off = 0.3 * met.hit if blind else 0.05 * np.sin(3 * met.log_mean)
    return log, np.exp(met.log_mean + off).ravel(), targets(met)


def truths() -> dict[str, dict[str, float]]:
    """Return every measure of every policy, from the CDFs of a million states without memory."""
    grid, found = np.geomspace(5.0, 50_000.0, 4000), {}
    met = states(np.random.default_rng(10**6), POPULATION, 0.0)
    for name, target in targets(met).items():
        likely = target > 0
        share, *edges = np.histogram2d(met.log_mean[likely], met.log_sd[likely], (500, 60), weights=target[likely])
        mean, sd = ((each[1:] + each[:-1]) / 2 for each in edges)
        at = np.nonzero(share)
        reached = np.array([ndtr((t - mean[at[0]]) / sd[at[1]]) @ share[at] for t in np.log(grid)]) / POPULATION
        found[name] = {"slo": float(np.interp(SLO_MS, grid, reached))}
        for level in (0.5, 0.9, 0.99):
            start = float(np.interp(level, reached, grid))
            beyond = np.concatenate([[start], grid[grid > start]])
            left = np.trapezoid(1 - np.interp(beyond, grid, reached), beyond)
            found[name] |= {f"p{100 * level:g}": start, f"cvar{100 * level:g}": float(start + left / (1 - level))}
    return found


def measured(repetitions: int, blind: bool) -> dict[tuple[str, str, str], list[TailEstimate]]:
    """Estimate everything as often as asked: by policy, measure and estimator."""
    found = defaultdict(list)
    for seed in range(repetitions):
        log, predicted, every = logged(seed, blind)
        for policy, target in every.items():
            rows = OneStepInput(log, target.ravel(), predicted)
            for each in tail_measures(rows, DECISIONS // BLOCKS, SLO_MS):
                found[policy, each.measure, each.estimator].append(each)
    return found


def section(model: str, repetitions: int, truth: dict[str, dict[str, float]]) -> Iterator[str]:
    """Yield the tables of one model."""
    found = measured(repetitions, blind=model == MODELS[1])
    errors, covers = [], []
    for policy, true in truth.items():
        told = {
            (measure, estimator): [each for each in found[policy, measure, estimator] if each.value is not None]
            for measure in MEASURES
            for estimator in ("snipw", "dm", "dr")
        }
        tail = np.mean([each.tail_ess for each in found[policy, "p99", "snipw"]])
        errors.append([policy, *(_triple(told, m, true[m], _error) for m in MEASURES), f"{tail:.0f}"])
        covers.append([policy, *(_triple(told, m, true[m], _cover) for m in MEASURES)])
        refused = [sum(each.value is None for each in found[policy, "p99", name]) for name in ("snipw", "dr")]
        covers[-1].append(" / ".join(f"{each / repetitions:.2f}" for each in refused))
    yield f"Model {model}: relative RMSE, snipw / dm / dr, of what is not refused; mean tail ESS beyond P99 of snipw.\n"
    yield markdown(["policy", *MEASURES, "tail ESS"], errors)
    yield f"Model {model}: share of 95 % intervals that hold the truth; share of P99 refused, snipw / dr.\n"
    yield markdown(["policy", *MEASURES, "refused"], covers)


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table."""
    lines = [list(head), *(list(row) for row in rows)]
    lines.insert(1, ["---"] + ["---:"] * (len(lines[0]) - 1))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _triple(told: dict[tuple[str, str], list[TailEstimate]], measure: str, true: float, say: Say) -> str:
    return " / ".join(say(told[measure, name], true) for name in ("snipw", "dm", "dr"))


def _error(told: list[TailEstimate], true: float) -> str:
    off = np.array([each.value for each in told]) / true - 1
    return f"{np.sqrt(np.mean(off**2)):.3f}" if len(off) else "refused"


def _cover(told: list[TailEstimate], true: float) -> str:
    held = [each.low <= true <= each.high for each in told if each.low is not None and each.high is not None]
    return f"{np.mean(held):.2f}" if held else "refused"


def speed() -> str:
    """Time all measures of a soft and of a greedy policy over a million decisions of eight candidates."""
    n, m = 1_000_000, 8
    random = np.random.default_rng(0)
    log_mean = 5 + random.normal(0, 0.8, (n, m))
    logging = random.random((n, m)) + 0.2
    logging /= logging.sum(axis=1)[:, None]
    column, rows = (random.random((n, 1)) > logging.cumsum(axis=1)[:, :-1]).sum(axis=1), np.arange(n)
    cost = np.exp(log_mean[rows, column] + 0.3 * random.normal(size=n))
    log = LoggedDecisions(cost, np.arange(n + 1) * m, rows * m + column, logging[rows, column], logging.ravel())
    soft = np.exp(-log_mean) / np.exp(-log_mean).sum(axis=1)[:, None]
    lines = []
    for name, target in (("soft", soft), ("greedy", (log_mean == log_mean.min(axis=1)[:, None]).astype(float))):
        for block in (n // BLOCKS, 1000):
            input_ = OneStepInput(log, target.ravel(), np.exp(log_mean).ravel())
            wall, cpu = time.perf_counter(), time.process_time()
            tail_measures(input_, block, SLO_MS)
            took = (time.perf_counter() - wall, time.process_time() - cpu)
            lines.append([name, f"{block:,}", *(f"{each:.1f}" for each in took)])
    return markdown(["policy", "block", "wall s", "processor s"], lines)


def main(repetitions: int) -> None:
    """Print all tables."""
    truth = truths()
    print(f"{repetitions} logs of {DECISIONS:,} decisions, {BLOCKS} blocks.\n")
    for model in MODELS:
        for part in section(model, repetitions, truth):
            print(part, flush=True)
    print("A million decisions of eight candidates, all measures by all three estimators.\n")
    print(speed())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
