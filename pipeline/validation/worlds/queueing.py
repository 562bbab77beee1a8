"""A world of queues with prefix caches in which every answer is known: what estimators and the replay are judged by.

Eight FIFO servers of unlike speed, one request at a time each; a prompt is the prefix of its group and a part of its
own, and a server keeps the prefixes of the last groups that it served. A request takes

    (overhead + prompt tokens that are not cached · token time) / speed · noise,  noise lognormal with mean 1

and its TTFT is that and the wait before it. Everything random about a request is drawn before the run and belongs to
the request, so that two policies meet the same arrivals with the same luck. Written for itself, without the replay.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError, unknown
from lodestar.pipeline.validation.worlds.queueing_kernel import POLICIES, run_queues, score_states

__all__ = ["LOGGING", "Run", "Traffic", "World", "policy_number", "traffic_of"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

LOGGING: Final = POLICIES[0]
_GROUPS: Final = 300
_OWN_TOKENS: Final = (256, 512)  # of a prompt beside its prefix: from, and below


@dataclass(frozen=True, slots=True)
class World:
    """What holds for every run: the servers, and how requests come.

    At `requests_per_s` the load is 0.62 under uniform routing, where 45 in 100 requests hit.

    Attributes:
        speed: of each server; work of one second takes 1 / speed.
        weight: the speeds that the router was told, which its policies reckon with.
        requests_per_s: Poisson arrivals.
        prefix_tokens: of every group's prefix, 80 % of a prompt.
        cached_groups: prefixes that a server keeps, the last used ones.
        overhead_ms: of every request at speed 1.
        token_ms: of every prompt token that is not cached, at speed 1.
        saved_ratio: what a cached prefix saves of its own work.
        noise_ratio: standard deviation of the log of the noise.
    """

    speed: tuple[float, ...] = tuple(np.linspace(0.7, 1.3, 8).tolist())
    weight: tuple[float, ...] = tuple(np.linspace(0.7, 1.3, 8).tolist())
    requests_per_s: float = 34.9
    prefix_tokens: int = 1536
    cached_groups: int = 24
    overhead_ms: float = 20.0
    token_ms: float = 0.1
    saved_ratio: float = 1.0
    noise_ratio: float = 0.1

    def misspecified(self) -> World:
        """Return a world that a careless builder of simulators would take for this one.

        Speeds are off by 15 %, up and down in turn, a hit saves 60 % of the prefill instead of 80 %, and nothing is
        noisy.

        >>> World().misspecified().saved_ratio
        0.75
        """
        off = [each * (0.85 if j % 2 else 1.15) for j, each in enumerate(self.speed)]
        return replace(self, speed=tuple(off), saved_ratio=0.75, noise_ratio=0.0)

    def services_ms(self, traffic: Traffic, hit: Bools) -> Floats:
        """Return the expected service of every request on every server, shape (n, m)."""
        work_ms, saved_ms = self._work_ms(traffic)
        return np.asarray((work_ms[:, None] - hit * saved_ms[:, None]) / np.array(self.speed))

    def run(
        self,
        traffic: Traffic,
        policy: str = LOGGING,
        seed: int = 0,
        other: str | None = None,
        share: float = 0.0,
        keep: bool = False,
    ) -> Run:
        """Serve the traffic from empty queues and caches.

        Args:
            traffic: the requests.
            policy: who decides.
            seed: of the noise, of the draws and of the coin, the same for every policy.
            other: decides instead on a random `share` of the requests: a mixture, or an A/B test.
            share: see `other`.
            keep: whether to keep the state at every decision.
        """
        n, m = len(traffic.at_ms), len(self.speed)
        random = np.random.default_rng([seed, 1])
        luck, uniform, coin = random.standard_normal(n), random.random(n), random.random(n)
        arm = np.full(n, policy_number(policy))
        if other is not None:
            arm[coin < share] = policy_number(other)
        rows = n if keep else 0
        run = Run(
            chosen=np.empty(n, dtype=np.int64),
            ttft_ms=np.empty(n),
            arm=arm,
            queue=np.empty((rows, m), dtype=np.int64),
            hit=np.empty((rows, m), dtype=np.bool_),
            backlog_ms=np.empty((rows, m)),
            probability=np.empty((rows, m)),
            noise=np.exp(self.noise_ratio * luck - self.noise_ratio**2 / 2),
        )
        run_queues(
            traffic.at_ms,
            traffic.group,
            *self._work_ms(traffic),
            run.noise,
            uniform,
            arm,
            np.array(self.speed),
            np.array(self.weight),
            self.cached_groups,
            run.chosen,
            run.ttft_ms,
            run.queue,
            run.hit,
            run.backlog_ms,
            run.probability,
        )
        return run

    def expected_ms(self, traffic: Traffic, run: Run) -> Floats:
        """Return E[TTFT | state, server] of every server at every decision that was kept, shape (n, m)."""
        return run.backlog_ms + self.services_ms(traffic, run.hit)

    def probabilities(self, traffic: Traffic, run: Run, policy: str) -> Floats:
        """Return what a policy would have done at every decision that was kept, shape (n, m)."""
        found = np.empty(run.backlog_ms.shape)
        expected_ms = self.expected_ms(traffic, run)
        score_states(policy_number(policy), run.queue, run.hit, expected_ms, np.array(self.weight), found)
        return found

    def _work_ms(self, traffic: Traffic) -> tuple[Floats, Floats]:
        """Return each request's work where nothing is cached, and what a cached prefix saves of it."""
        whole_ms = np.asarray(self.overhead_ms + self.token_ms * traffic.prompt_tokens, dtype=np.float64)
        saved_ms: Floats = np.full(len(whole_ms), self.token_ms * self.prefix_tokens * self.saved_ratio)
        return whole_ms, saved_ms


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests, whatever becomes of them, shape (n,) each: arrival in ms, prefix group, length of the prompt."""

    at_ms: Floats
    group: Ints
    prompt_tokens: Ints


@dataclass(frozen=True, slots=True)
class Run:
    """What became of the traffic; what has one column a server is empty unless it was kept.

    Attributes:
        chosen: server of each request, shape (n,).
        ttft_ms: shape (n,).
        arm: number of the policy that decided, shape (n,).
        queue: requests at each server as it decided, shape (n, m).
        hit: whether the server's cache held the prefix, shape (n, m).
        backlog_ms: until the server would have been idle, which no router knows, shape (n, m).
        probability: with which each server was to be chosen, shape (n, m).
        noise: factor on the service, shape (n,).
    """

    chosen: Ints
    ttft_ms: Floats
    arm: Ints
    queue: Ints
    hit: Bools
    backlog_ms: Floats
    probability: Floats
    noise: Floats


def policy_number(policy: str) -> int:
    """Return the number by which compiled code knows a policy.

    >>> policy_number("jsq")
    2
    """
    if policy not in POLICIES:
        raise unknown("policy of the queueing world", policy, POLICIES)
    return POLICIES.index(policy)


def traffic_of(world: World, requests: int, seed: int = 0) -> Traffic:
    """Draw requests: Poisson arrivals, groups by Zipf's law with exponent 1, and a part of each prompt of its own.

    >>> traffic = traffic_of(World(), 3)
    >>> traffic.group.tolist(), traffic.prompt_tokens.tolist()
    ([0, 92, 173], [1920, 1947, 2040])
    """
    if requests < 1:
        raise ConfigError(f"{requests} requests; expected at least 1")
    random = np.random.default_rng([seed, 0])
    share = 1.0 / np.arange(1, _GROUPS + 1)
    at_ms = np.cumsum(random.exponential(1e3 / world.requests_per_s, requests))
    group = np.searchsorted(np.cumsum(share / share.sum()), random.random(requests))
    return Traffic(at_ms, np.minimum(group, _GROUPS - 1), world.prefix_tokens + random.integers(*_OWN_TOKENS, requests))
