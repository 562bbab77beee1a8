"""A world of jobs before FIFO servers of unlike speed: CausalSim's load-balancing example, written anew.

Eight servers take ``slowness · size`` ms for a job, slowness = 5^U(−1, 1); jobs come as a Poisson process, one in 50 ms
on average; sizes are scaled so that jobs sent at random would keep the servers busy for 60 % of the time on average
(the slowest ones for more than all of it). Sizes are normal around a mean and a spread that jump now and then, within
3 and 1000 before the scaling. Traffic is cut into trajectories, each of which begins with idle servers.

Source: Alomar, Hamadanian, Nasr-Esfahany, Agarwal, Alizadeh and Shah, *CausalSim*, NSDI 2023, and its published code,
``load-balancing/``. Other than there, means jump once in 200 jobs and not in 12,000, and a trajectory has 500 jobs and
not 1,000, so that 16,000 jobs show as many states as a million do there; and sizes are whole numbers, to be prompt
tokens.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError, unknown

__all__ = [
    "POLICIES",
    "SERVERS",
    "TRAJECTORY_JOBS",
    "Jobs",
    "Rule",
    "Run",
    "draw_jobs",
    "probabilities",
    "rule_of",
    "run",
    "tracked_next",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SERVERS: Final = 8
TRAJECTORY_JOBS: Final = 500
_LOAD: Final = 0.6
_GAP_MS: Final = 50.0
_STATES: Final = 50
_JUMP: Final = 1 / 200


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy: servers in order of a key, ties by number, and the probability of the first, second, … of them.

    Attributes:
        key: 'none', 'queue' (jobs there), 'slowness' ((jobs + 1) · slowness), 'tracked' ((jobs + 1) · tracked time).
        shares: probability by rank, shape (SERVERS,).
    """

    key: str
    shares: tuple[float, ...]

    def keys(self, queue: Floats, slowness: Floats, tracked: Floats) -> Floats:
        """Return what servers are ordered by, in the shape of `queue`, (…, SERVERS)."""
        if self.key == "none":
            return np.zeros_like(queue)
        if self.key == "queue":
            return queue
        return np.asarray((queue + 1) * (slowness if self.key == "slowness" else tracked))


_BEST: Final = (1.0, *[0.0] * (SERVERS - 1))


def _best_of(k: int) -> tuple[float, ...]:
    """Return the probability that the best of k draws, with replacement, has each rank."""
    return tuple(((SERVERS - r) ** k - (SERVERS - r - 1) ** k) / SERVERS**k for r in range(SERVERS))


POLICIES: Final[dict[str, Rule]] = {
    "random": Rule("none", (1 / SERVERS,) * SERVERS),
    "shortest-queue": Rule("queue", _BEST),
    **{f"power-of-{k}": Rule("queue", _best_of(k)) for k in (2, 3, 4, 5)},
    "pseudo-optimal": Rule("slowness", _BEST),
    "tracker": Rule("tracked", _BEST),
}


def tracked_next(tracked: float, took_ms: float) -> float:
    """Return what the tracker remembers of a server after a job: 0.995 of what it did, and 0.005 of its time.

    >>> tracked_next(100.0, 300.0)
    101.0
    """
    return 0.995 * tracked + 0.005 * took_ms


def rule_of(policy: str) -> Rule:
    """Return the rule of a policy by its name.

    >>> rule_of("power-of-2").shares[0] * 64
    15.0
    """
    if policy not in POLICIES:
        raise unknown("load-balancing policy", policy, POLICIES)
    return POLICIES[policy]


def probabilities(policy: str, queue: Floats, slowness: Floats, tracked: Floats) -> Floats:
    """Return the probability that a policy gives every server in each of n states, shape (n, SERVERS).

    Args:
        policy: its name.
        queue: jobs at every server, shape (n, SERVERS).
        slowness: ms for a unit of size that the policy knows of, shape (SERVERS,).
        tracked: what the tracker remembers, shape (n, SERVERS).

    >>> told = probabilities("shortest-queue", np.array([[1.0] * 7 + [0.0]]), np.ones(8), np.zeros((1, 8)))
    >>> told[0].tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    """
    rule = rule_of(policy)
    order = np.argsort(rule.keys(queue, slowness, tracked), axis=1, kind="stable")
    found = np.empty(queue.shape)
    np.put_along_axis(found, order, np.broadcast_to(rule.shares, queue.shape), axis=1)
    return found


@dataclass(frozen=True, slots=True)
class Jobs:
    """Jobs in order of arrival.

    Attributes:
        arrived_at_ms: shape (n,); between two trajectories there is time to finish everything.
        size: whole numbers, shape (n,).
        trajectory: numbered from 0, shape (n,).
        uniform: the chance of each job, which is the same under every policy, shape (n,).
        slowness: ms for a unit of size on each server, shape (SERVERS,).
    """

    arrived_at_ms: Floats
    size: Ints
    trajectory: Ints
    uniform: Floats
    slowness: Floats

    def __len__(self) -> int:
        """Return the number of jobs."""
        return len(self.size)

    @property
    def processing_ms(self) -> Floats:
        """Time that each job takes on each server, shape (n, SERVERS)."""
        return self.size[:, None] * self.slowness

    def only(self, kept: NDArray[np.bool_]) -> Jobs:
        """Return the jobs for which `kept` is true, each with the chance that it has."""
        return replace(
            self, **{name: getattr(self, name)[kept] for name in ("arrived_at_ms", "size", "trajectory", "uniform")}
        )


def draw_jobs(jobs: int, seed: int) -> Jobs:
    """Draw servers and jobs, as many as whole trajectories hold.

    >>> drawn = draw_jobs(1000, seed=0)
    >>> load = drawn.size.mean() * drawn.slowness.mean() / SERVERS / 50
    >>> len(drawn), drawn.trajectory.max(), abs(load - 0.6) < 0.05
    (1000, np.int64(1), np.True_)
    """
    if jobs < TRAJECTORY_JOBS * 2:
        raise ConfigError(f"{jobs} jobs; expected {TRAJECTORY_JOBS * 2} or more, two trajectories. Ask for more")
    n = jobs // TRAJECTORY_JOBS * TRAJECTORY_JOBS
    rng = np.random.default_rng(seed)
    slowness = 5 ** rng.uniform(-1, 1, SERVERS)
    state = np.cumsum(rng.random(n) < _JUMP)
    mean = rng.choice(np.logspace(1, 2.5, _STATES), state[-1] + 1)[state]
    spread = rng.choice(np.linspace(0, 0.5, _STATES), state[-1] + 1)[state] * mean
    size = np.clip(rng.normal(mean, spread), 3, 1000)
    gaps_ms = rng.exponential(_GAP_MS, n)
    size *= _LOAD * SERVERS * _GAP_MS / slowness.mean() / size.mean()
    whole = np.maximum(np.rint(size), 1).astype(np.int64)
    trajectory = np.arange(n) // TRAJECTORY_JOBS
    # All the work of a trajectory on the slowest server: after that, whatever the policy, all are idle.
    work_ms = np.bincount(trajectory, whole * slowness.max())
    gaps_ms[TRAJECTORY_JOBS::TRAJECTORY_JOBS] += work_ms[:-1]
    arrived_at_ms = np.cumsum(gaps_ms) - gaps_ms[0]
    return Jobs(arrived_at_ms, whole, trajectory, rng.random(n), slowness)


@dataclass(frozen=True, slots=True)
class Run:
    """What came of the jobs, shape (n,) each, and what there was to see before each decision, shape (n, SERVERS).

    Attributes:
        server: where each job went.
        processing_ms: time that it took there.
        latency_ms: from arrival to completion.
        queue: jobs at every server.
        work_ms: time until every server is idle.
        tracked: what the tracker remembers.
    """

    server: Ints
    processing_ms: Floats
    latency_ms: Floats
    queue: Floats
    work_ms: Floats
    tracked: Floats

    def only(self, kept: NDArray[np.bool_]) -> Run:
        """Return the jobs for which `kept` is true."""
        return Run(*(getattr(self, each.name)[kept] for each in fields(self)))


def run(jobs: Jobs, policies: Sequence[str], processing_ms: Floats) -> Run:
    """Send jobs to the servers, first come first served on each (Lindley: latency = work there + processing time).

    The tracker hears the processing time of every job as it is sent, whoever sends it, as in CausalSim's code:
    tracked ← 0.995 · tracked + 0.005 · time. Its memory outlives trajectories; queues do not.

    Args:
        jobs: what comes.
        policies: name of the policy that decides on each job, length n.
        processing_ms: of each job on each server, shape (n, SERVERS): the truth, or what someone takes it for.
    """
    n, m = len(jobs), SERVERS
    seen, cuts = np.zeros((3, n, m)), {name: np.cumsum(rule_of(name).shares)[:-1].tolist() for name in set(policies)}
    waiting: list[deque[float]] = [deque() for _ in range(m)]
    free_at, tracked, queue = np.zeros(m), np.zeros(m), np.zeros(m)
    server, latency_ms = np.zeros(n, dtype=np.int64), np.zeros(n)
    for i, (now, u, policy) in enumerate(
        zip(jobs.arrived_at_ms.tolist(), jobs.uniform.tolist(), policies, strict=True)
    ):
        for j, ends in enumerate(waiting):
            while ends and ends[0] <= now:
                ends.popleft()
            queue[j] = len(ends)
        seen[0, i], seen[1, i], seen[2, i] = queue, np.maximum(free_at - now, 0), tracked
        order = POLICIES[policy].keys(queue, jobs.slowness, tracked).argsort(kind="stable")
        j = int(order[bisect_right(cuts[policy], u)])
        took = float(processing_ms[i, j])
        free_at[j] = max(float(free_at[j]), now) + took
        waiting[j].append(float(free_at[j]))
        tracked[j] = tracked_next(float(tracked[j]), took)
        server[i], latency_ms[i] = j, free_at[j] - now
    taken = processing_ms[np.arange(n), server]
    return Run(server, taken, latency_ms, *seen)
