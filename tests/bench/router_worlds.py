"""How often intervals of tests of two routers hold in other worlds: ``python tests/bench/router_worlds.py [LOGS]``.

`lodestar validate` has two pairs at one load. Here are turns that are long, short and too short for what a queue
remembers, and arms that differ little and much. Prints, for turns: bias over spread, how often the interval held, how
often Welch's t alone would have, and how often the note said that the difference still moves; for a coin a request: the
plain difference over the mean cost, how often the note took it for too much, bias over the truth, how often the
interval held. Half an hour for 300 logs a row on two busy cores.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from lodestar.pipeline.estimation.beyond.differences_in_q import differences_in_q
from lodestar.pipeline.estimation.beyond.switchback import switchback

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
#: From waits and times to serve the request at each server, shape (logs, servers), and its group: probabilities.
Rule = Callable[[Floats, Floats, Ints], Floats]

GROUPS, CACHED, SAVED = 40, 12, 0.7  # prefix groups, those that a server keeps, share of the work that a hit saves
UNEQUAL, EQUAL, EIGHT = (1.2, 1.0, 0.8), (1.0,) * 4, (0.7, 0.8, 0.9, 0.95, 1.05, 1.1, 1.2, 1.3)
WARM, RUN, RUNS = 3000, 20_000, 300


class World(NamedTuple):
    """Servers, arrivals in the time that speed 1 takes for one, whether they cache, and how much work varies."""

    speeds: tuple[float, ...]
    rate: float
    caches: bool = False
    heavy: bool = False


def even(wait: Floats, took: Floats, group: Ints) -> Floats:
    return np.full(wait.shape, 1 / wait.shape[1])


def soft(wait: Floats, took: Floats, group: Ints) -> Floats:
    weight = np.exp(-wait)
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))


def shortest(wait: Floats, took: Floats, group: Ints) -> Floats:
    low = wait == wait.min(axis=1, keepdims=True)
    return np.asarray(low / low.sum(axis=1, keepdims=True))


def soonest(wait: Floats, took: Floats, group: Ints) -> Floats:
    return shortest(wait + took, took, group)


def sticky(wait: Floats, took: Floats, group: Ints) -> Floats:
    return np.asarray(np.arange(wait.shape[1]) == (group % wait.shape[1])[:, None], dtype=np.float64)


def queue(rules: tuple[Rule, Rule], arm: Ints, seed: int, world: World) -> Floats:
    """Return the cost of each request of first-come-first-served servers (Lindley), shape (n, logs)."""
    n, logs = arm.shape
    random, row, speeds = np.random.default_rng([seed, 5]), np.arange(logs), np.array(world.speeds)
    gap, luck = random.exponential(1 / world.rate, (n, logs)), random.random((n, logs))
    work = random.lognormal(-0.72, 1.2, (n, logs)) if world.heavy else random.exponential(1.0, (n, logs))
    often = np.arange(1, GROUPS + 1) ** -0.7
    groups = random.choice(GROUPS, (n, logs), p=often / often.sum())
    wait, used = np.zeros((logs, len(speeds))), np.full((logs, len(speeds), GROUPS), -1)
    cost = np.empty((n, logs))
    for i in range(n):
        wait, group = np.maximum(wait - gap[i][:, None], 0.0), groups[i]
        took = np.broadcast_to(1 / speeds, wait.shape)
        if world.caches:
            mine = used[row, :, group]
            took = took * (1 - SAVED * ((mine >= 0) & ((used > mine[:, :, None]).sum(axis=2) < CACHED)))
        chance = np.where(arm[i][:, None] == 1, rules[1](wait, took, group), rules[0](wait, took, group))
        server = np.minimum((chance.cumsum(axis=1) < luck[i][:, None]).sum(axis=1), len(speeds) - 1)
        wait[row, server] += work[i] * took[row, server]
        used[row, server, group] = i
        cost[i] = wait[row, server]
    return cost


@cache
def truth(rules: tuple[Rule, Rule], world: World) -> float:
    """Return the difference of runs in which one rule decides."""
    alone = [queue((rule, rule), np.zeros((RUN, RUNS), np.int64), 2**31, world)[WARM:].mean() for rule in rules]
    return float(alone[1] - alone[0])


def by_turns(rules: tuple[Rule, Rule], world: World, n: int, length: int, plan: str, logs: int) -> str:
    turns = np.tile((np.arange(n // length) % 2)[:, None], (1, logs))
    if plan == "at random":
        turns = np.random.default_rng(9).permuted(turns, axis=0)
    arm, period = np.repeat(turns, length, axis=0), np.arange(n) // length
    cost, true = queue(rules, arm, 1, world), truth(rules, world)
    found = [switchback(cost[:, k], arm[:, k], period=period) for k in range(logs)]
    value, se = (np.array([getattr(each, name) for each in found]) for name in ("value", "se"))
    held = np.mean([low <= true <= high for low, high in (each.interval() for each in found)])
    by_t = np.mean(np.abs(value - true) <= stdtrit([each.freedom for each in found], 0.975) * se)
    half = np.mean([np.diff(each.interval()) / 2 for each in found])
    said = np.mean([len(each.notes) > 1 for each in found])
    numbers = f"{(value.mean() - true) / value.std():+.2f} | {value.std():.3f} | {half:.3f} | {held:.3f} | {by_t:.3f}"
    return f"{n:,} | {length} {plan} | {true:+.3f} | {numbers} | {said:.2f}"


def by_a_coin(rules: tuple[Rule, Rule], world: World, n: int, logs: int) -> str:
    arm = np.random.default_rng(8).integers(0, 2, (n, logs))
    cost, true = queue(rules, arm, 2, world), truth(rules, world)
    found = [differences_in_q(cost[:, k], arm[:, k]) for k in range(logs)]
    value = np.array([each.path.value for each in found])
    half = np.array([stdtrit(each.path.blocks - 1, 0.975) * each.path.se for each in found])
    plain = np.abs([each.naive for each in found]) / cost.mean(axis=0)
    said = np.mean([any("mean cost at once" in note for note in each.path.notes) for each in found])
    off = (value.mean() - true) / abs(true)
    numbers = (
        f"{off:+.2f} ± {value.std() / np.sqrt(logs) / abs(true):.2f} | {np.mean(np.abs(value - true) <= half):.3f}"
    )
    return f"{n:,} | {true:+.3f} | {plain.mean():.2f} | {said:.2f} | {numbers}"


def named(rules: tuple[Rule, Rule], world: World) -> str:
    how = f"{', caches' if world.caches else ''}{', heavy work' if world.heavy else ''}"
    return f"{rules[0].__name__}, {rules[1].__name__} | {len(world.speeds)} at {world.rate}{how}"


BAD, GOOD = (even, soonest), (soft, soonest)
TURNS = [
    (rules, World(UNEQUAL, rate, heavy=heavy), n, length, plan)
    for rules, rate, heavy, n, length, plan in (
        (BAD, 1.6, False, 12_000, 300, "at random"), (GOOD, 1.6, False, 12_000, 300, "at random"),
        (BAD, 1.6, False, 12_000, 300, "by turns"), (GOOD, 1.6, False, 12_000, 300, "by turns"),
        (BAD, 1.2, False, 12_000, 300, "at random"), (GOOD, 2.2, False, 12_000, 300, "by turns"),
        (BAD, 1.6, False, 6000, 600, "at random"), (BAD, 1.6, False, 48_000, 300, "by turns"),
        (BAD, 1.6, False, 48_000, 1200, "at random"), (BAD, 1.6, False, 12_000, 100, "by turns"),
        (BAD, 2.0, False, 12_000, 300, "by turns"), (BAD, 2.0, False, 48_000, 300, "by turns"),
        (BAD, 2.0, False, 48_000, 1200, "by turns"), (BAD, 1.6, True, 12_000, 300, "at random"),
        (BAD, 1.6, True, 48_000, 300, "by turns"),
    )
]  # fmt: skip
COINS = [
    *((rules, World(UNEQUAL, rate), 12_000) for rate in (1.2, 2.0) for rules in (GOOD, (even, soft), BAD)),
    (BAD, World(UNEQUAL, 0.6), 12_000), (GOOD, World(UNEQUAL, 1.6), 48_000), (BAD, World(UNEQUAL, 1.6), 48_000),
    (GOOD, World(UNEQUAL, 1.6, heavy=True), 12_000), (BAD, World(UNEQUAL, 1.6, heavy=True), 12_000),
    ((shortest, soonest), World(EIGHT, 6.5), 12_000), (BAD, World(EIGHT, 5.0), 12_000),
    ((shortest, sticky), World(EQUAL, 2.0, caches=True), 12_000),
    ((even, sticky), World(EQUAL, 3.0, caches=True), 12_000),
    ((shortest, soonest), World(EQUAL, 4.0, caches=True), 12_000),
    ((sticky, soonest), World(EQUAL, 6.0, caches=True), 12_000),
]  # fmt: skip


def main(logs: int) -> None:
    columns = "truth | bias / sd | sd | half-width | held | t alone | said"
    print(f"| arms | servers and rate | requests | turns of | {columns} |")
    print("|---|---|--:|---|--:|--:|--:|--:|--:|--:|--:|")
    for rules, world, n, length, plan in TURNS:
        print(f"| {named(rules, world)} | {by_turns(rules, world, n, length, plan, logs)} |", flush=True)
    print("\n| arms | servers and rate | requests | truth | plain / mean | said | bias / truth | held |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    for rules, world, n in COINS:
        print(f"| {named(rules, world)} | {by_a_coin(rules, world, n, logs)} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
