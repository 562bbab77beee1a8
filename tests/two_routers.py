"""Logs of two routers on one system of four servers, as a coin, a plan or the load chose between them."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

from lodestar.data.log import RequestLog

__all__ = ["RULES", "two_routers"]

Floats = NDArray[np.float64]
#: From how busy it is (requests in flight, less the middle, over their spread), place of the request, a uniform draw,
#: and the arm before: the arm.
Rule = Callable[[float, int, float, int], int]

SERVERS = 4
RULES: dict[str, Rule] = {
    "coin": lambda busy, i, u, before: int(u < 0.5),
    "coin of 1 in 10": lambda busy, i, u, before: int(u < 0.1),
    "fallback": lambda busy, i, u, before: int(u < 1 / (1 + np.exp(-2 * busy))),
    "0.5 ± 0.1 with load": lambda busy, i, u, before: int(u < 0.5 + (0.1 if busy > 0 else -0.1)),
    "0.5 ± 0.05 with load": lambda busy, i, u, before: int(u < 0.5 + (0.05 if busy > 0 else -0.05)),
    "turns of 50": lambda busy, i, u, before: i // 50 % 2,
    "turns of 250": lambda busy, i, u, before: i // 250 % 2,
    "fallback until it is quiet": lambda busy, i, u, before: int(busy > (-0.5 if before else 1.5)),
}


def two_routers(seed: int, rule: str, n: int, differ: bool = True, load: float = 0.8) -> RequestLog:
    """Replay a load that drifts (rate AR(1), memory of 100 requests) through four servers.

    Args:
        seed: of all that is drawn.
        rule: one of `RULES`; those of turns of a coin are 'coin of turns'.
        n: requests.
        differ: whether b takes any server, or the first to be free as a does.
        load: mean share of the servers' time.
    """
    random = np.random.default_rng(seed)
    rate = np.exp(_drift(random, n, 0.99) * 0.4)
    arrived = np.cumsum(random.exponential(size=n) / (SERVERS * load * rate))
    work, coin, any_one = random.exponential(size=n), random.random(n), random.integers(0, SERVERS, n)
    turn = random.integers(0, 2, n // 50 + 1)
    free, ends = np.zeros(SERVERS).tolist(), list[float]()
    arm, chosen, wait = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64), np.zeros(n)
    choose = RULES.get(rule)
    before = 0
    for i, now in enumerate(arrived.tolist()):
        while ends and ends[0] <= now:
            heappop(ends)
        busy = (len(ends) - 4.0) / 3.0
        before = int(turn[i // 50]) if choose is None else choose(busy, i, float(coin[i]), before)
        at = int(any_one[i]) if before and differ else free.index(min(free))
        start = max(now, free[at])
        free[at] = start + float(work[i])
        heappush(ends, free[at])
        arm[i], chosen[i], wait[i] = before, at, start - now
    return _log(arrived, work, arm, chosen, wait, random.integers(16, 2000, n))


def _drift(random: np.random.Generator, n: int, memory: float) -> Floats:
    noise, at = random.normal(size=n) * np.sqrt(1 - memory**2), 0.0
    drift = np.empty(n)
    for i, step in enumerate(noise.tolist()):
        drift[i] = at = memory * at + step
    return drift


def _log(
    arrived: Floats, work: Floats, arm: NDArray[np.int64], chosen: NDArray[np.int64], wait: Floats,
    prompt_tokens: NDArray[np.int64],
) -> RequestLog:  # fmt: skip
    n = len(arrived)
    nothing = np.full(n, np.nan)
    whole = np.zeros(0, dtype=np.int64)
    return RequestLog(
        "made", list("abcd"), [str(i) for i in range(n)], arrived, prompt_tokens, np.ones(n, dtype=np.int64), chosen,
        nothing, None, np.ones((n, SERVERS), dtype=np.bool_), {}, np.full((n, SERVERS), np.nan),
        1000 * wait + 10, nothing, 1000 * (wait + work) + 10, whole, np.zeros(n + 1, dtype=np.int64), None,
        loggers=("router-a", "router-b"), logger=arm,
    )  # fmt: skip
