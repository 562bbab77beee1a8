"""How often a log says that it is near overload, where intervals hold and where not: ``… near_overload.py [LOGS]``.

Replayed logs of many loads, those of the queueing world, and fleets of independent queues; most were not looked at when
the rule was made. Prints, for each: how often nominal 95 % intervals by blocks hold (least and most of snipw and dr,
two policies; of independent queues, that of the mean), how many of the logs have the note, and how many of those whose
interval does not hold. Ten minutes for 200 logs a row on two cores.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np

from lodestar.pipeline.estimation.intervals.interval import Interval
from lodestar.pipeline.estimation.intervals.linearised import linearised_interval
from lodestar.pipeline.estimation.least_squares import Linear
from lodestar.pipeline.estimation.near_overload import near_overload, worth_of
from lodestar.pipeline.replay.parallel import mapper
from lodestar.pipeline.validation.coverage import dr_interval, snipw_interval
from lodestar.pipeline.validation.replayed_logs import (
    LIMITS,
    TARGETS,
    WORLDS,
    ReplayedWorld,
    recorded,
    replayed_log,
    simple_model,
)
from lodestar.pipeline.validation.worlds.queueing import World, traffic_of
from lodestar.pipeline.validation.worlds.queueing_truth import warm

FRESH = (
    ("uneven", 500, 6.0),
    ("uneven", 1500, 6.0),
    ("uneven", 6000, 11.0),
    ("sharing28", 1500, 4.0),
    ("sharing28", 4000, 7.0),
    ("sessions", 2000, 1.0),
    ("sessions", 6000, 1.5),
    ("sessions", 2000, 2.0),
    ("sessions", 6000, 2.0),
    ("bursts", 2000, 3.0),
    ("bursts", 4000, 3.0),
    ("bursts", 6000, 6.0),
    ("bursts", 1000, 7.0),
    ("bursts", 2000, 7.0),
    ("bursts", 24_000, 7.0),
    ("bursts", 6000, 8.0),
)
QUEUES = ((45.0, 2000), (50.0, 6000), (53.0, 6000), (55.0, 6000), (57.0, 2000), (57.0, 6000), (55.0, 24_000))
FLEETS = ((1, 0.5), (1, 0.95), (4, 0.7), (4, 0.9), (16, 0.7), (16, 0.9))
POLICIES = ("jsq/speed", "uniform")


class Read(NamedTuple):
    """What one log gives: whether it has the note; for each policy, its one-step value without bias, and intervals."""

    noted: bool
    values: list[float]
    intervals: list[tuple[Interval, Interval]]


def replayed(world: ReplayedWorld, model: Linear, seed: int) -> Read:
    log = recorded(world, seed)
    intervals = []
    for target in TARGETS:
        read = replayed_log(log, target, model)
        args = read.cost, read.weight, read.direct, read.predicted
        intervals.append((snipw_interval(*args[:2], shared=read.shared), dr_interval(*args, shared=read.shared)))
    noted = near_overload(worth_of(log.ttft_ms, log.chosen))
    return Read(bool(noted), [dr.value for _, dr in intervals], intervals)


def queued(world: World, requests: int, seed: int) -> Read:
    traffic = traffic_of(world, requests, seed)
    run, counted = world.run(traffic, seed=seed, keep=True), warm(requests)
    chosen = (np.arange(requests)[counted], run.chosen[counted])
    cost, foretold = run.ttft_ms[counted], world.misspecified().expected_ms(traffic, run)
    values, intervals = [], []
    for policy in POLICIES:
        target = world.probabilities(traffic, run, policy)
        weight, direct = target[chosen] / run.probability[chosen], (target * foretold).sum(axis=1)[counted]
        values.append(float((target * world.expected_ms(traffic, run)).sum(axis=1)[counted].mean()))
        intervals.append((snipw_interval(cost, weight), dr_interval(cost, weight, direct, foretold[chosen])))
    return Read(bool(near_overload(worth_of(cost, chosen[1]))), values, intervals)


def alone(servers: int, load: float, seed: int, requests: int = 12_000, warm_up: int = 20_000) -> Read:
    """Sojourns at M/M/1 queues of their own, between which a fair coin chooses; their mean is 1 / (1 − load)."""
    random = np.random.default_rng(seed)
    n = requests + warm_up
    at, work = np.cumsum(random.exponential(1 / (servers * load), n)), random.exponential(1.0, n)
    server, cost = random.integers(0, servers, n), np.empty(n)
    for j in range(servers):
        here = server == j
        steps = np.concatenate([[0.0], np.cumsum(work[here][:-1] - np.diff(at[here]))])
        cost[here] = steps - np.minimum.accumulate(steps) + work[here]
    cost, server = cost[warm_up:], server[warm_up:]
    found = linearised_interval(float(cost.mean()), cost)
    return Read(bool(near_overload(worth_of(cost, server))), [1 / (1 - load)], [(found, found)])


def row(name: str, logs: list[Read]) -> str:
    noted = np.array([log.noted for log in logs])
    truth = np.mean([log.values for log in logs], axis=0)
    missed = np.array(
        [[not each.holds(truth[k]) for k, both in enumerate(log.intervals) for each in both] for log in logs]
    )
    held = 1 - missed.mean(axis=0)
    of_missed = f"{noted[np.nonzero(missed)[0]].mean():.2f}" if missed.any() else "–"
    return f"| {name} | {held.min():.3f} to {held.max():.3f} | {noted.mean():.2f} | {of_missed} |"


def rows(logs: int) -> Iterator[str]:
    near = [world for world in LIMITS if not world.same_requests]
    with mapper() as cores:
        for each in chain(near, WORLDS, (ReplayedWorld(*one) for one in FRESH)):
            model = simple_model(recorded(each, 0))
            yield row(each.name, list(cores.map(partial(replayed, each, model), range(1, logs + 1))))
        for rate, requests in QUEUES:
            world = replace(World(), requests_per_s=rate)
            name = f"queueing, {requests} at {rate:g}/s"
            yield row(name, list(cores.map(partial(queued, world, requests), range(logs))))
        for servers, load in FLEETS:
            name = f"{servers} queues of their own, 12000 at load {load}"
            yield row(name, list(cores.map(partial(alone, servers, load), range(logs))))


if __name__ == "__main__":
    print("| log | intervals hold | has the note | has it, of those that do not hold |\n| --- | ---: | ---: | ---: |")
    for line in rows(int(sys.argv[1]) if len(sys.argv) > 1 else 200):
        print(line, flush=True)
