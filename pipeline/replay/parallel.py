"""Many replays at once, on all cores, through one `map`.

A replay is compiled code that holds no lock of the interpreter, so threads run it on all cores and share the workload:
nothing is copied, no process starts, and a stray library's threads meet no fork. Results come in the order of the
tasks, and a replay depends on nothing but its task, so they are the same to the byte whatever the number of cores.
A policy in plain Python, or one that learns, holds the lock; its replays run one by one, beside the compiled ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from lodestar.pipeline.replay.cluster import Cluster, Outcome
from lodestar.pipeline.replay.python_policy import PythonPolicy
from lodestar.pipeline.replay.routing.contract import Policy
from lodestar.pipeline.replay.routing.learning import LearningPolicy

__all__ = ["SERIAL", "AnyPolicy", "Mapper", "Run", "begin", "cores", "mapper", "replay_all", "replay_one"]

AnyPolicy = Policy | PythonPolicy | LearningPolicy
Progress = Callable[[str, int, int], None]
T = TypeVar("T")
R = TypeVar("R")


class Mapper(Protocol):
    """What runs independent tasks; any `concurrent.futures.Executor` is one, a cluster of machines can be."""

    def map(self, function: Callable[[T], R], tasks: Iterable[T], /) -> Iterator[R]:
        """Return the result of each task, in the order of the tasks; an error of a task is raised in its place."""


class _Serial:
    def map(self, function: Callable[[T], R], tasks: Iterable[T], /) -> Iterator[R]:
        return map(function, tasks)


SERIAL: Final[Mapper] = _Serial()


@dataclass(frozen=True, slots=True)
class Run:
    """One replay to do: all that it depends on, so that it can be done anywhere.

    Attributes:
        cluster: the instances and the workload.
        policy: compiled, in plain Python, or one that learns.
        seed: of its random numbers.
        record: whether to keep what the router saw, or for which requests.
    """

    cluster: Cluster
    policy: AnyPolicy
    seed: int
    record: bool | range = False


def replay_one(run: Run) -> Outcome:
    """Do one replay; a policy in plain Python begins afresh each time."""
    policy = run.policy if isinstance(run.policy, Policy) else run.policy.fresh()
    return run.cluster.replay(policy, seed=run.seed, record=run.record)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def mapper(workers: int | None = None) -> Iterator[Mapper]:
    """Open a `map` over all cores, or over as many workers as given; with one, it is the plain one.

    >>> with mapper(2) as both:
    ...     list(both.map(abs, [-1, 2, -3]))
    [1, 2, 3]
    """
    workers = cores() if workers is None else workers
    if workers <= 1:
        yield SERIAL
        return
    executor = ThreadPoolExecutor(workers, thread_name_prefix="replay")
    try:
        yield executor
    finally:
        # After an error or ctrl-C nobody waits for what is left.
        executor.shutdown(wait=False, cancel_futures=True)


def begin(
    cluster: Cluster,
    policies: Mapping[str, AnyPolicy],
    seeds: Sequence[int],
    mapper: Mapper = SERIAL,
    record: bool | range = False,
) -> Iterator[tuple[str, Outcome]]:
    """Begin the replays of every policy under every seed, and hand them over in this order as they are asked for."""
    runs = [
        (name, Run(cluster, policy, seed, record if seed == seeds[0] else False))
        for name, policy in policies.items()
        for seed in seeds
    ]
    compiled = mapper.map(replay_one, [run for _, run in runs if isinstance(run.policy, Policy)])
    return ((name, next(compiled) if isinstance(run.policy, Policy) else replay_one(run)) for name, run in runs)


def replay_all(
    cluster: Cluster,
    policies: Mapping[str, AnyPolicy],
    seeds: Sequence[int],
    mapper: Mapper = SERIAL,
    progress: Progress | None = None,
    record: bool | range = False,
) -> dict[str, list[Outcome]]:
    """Replay every policy under every seed.

    Args:
        cluster: the instances and the workload.
        policies: by name.
        seeds: the same for all.
        mapper: what runs them.
        progress: told what is done, how much of it, and of how much.
        record: whether to keep what the router saw under the first seed, or for which requests.
    """
    outcomes: dict[str, list[Outcome]] = {name: [] for name in policies}
    for done, (name, outcome) in enumerate(begin(cluster, policies, seeds, mapper, record), 1):
        outcomes[name].append(outcome)
        if progress:
            progress("replay", done, len(policies) * len(seeds))
    return outcomes
