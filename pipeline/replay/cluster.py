"""A cluster of simulated instances: a workload goes in with a policy, outcomes come out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.errors import ConfigError
from lodestar.data.log import Workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.loop import run
from lodestar.pipeline.replay.policies.contract import Policy
from lodestar.pipeline.replay.policies.random_choice import RandomChoice
from lodestar.pipeline.replay.prefixes import PrefixTree, prefix_tree
from lodestar.pipeline.replay.state import new_state

__all__ = ["Cluster", "Outcome"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: AIBrix forgets a prefix it has not sent for this long.
PREFIX_TTL_S = 1200.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of every request in one run, shape (n,) each; TPOT is NaN for a request of one token.

    Attributes:
        snapshots: what the router saw, shape (n, m, fields), or (0, m, fields) when not recorded.
        imbalance: in-flight requests of the fullest instance above the mean, averaged over decisions.
    """

    instance: Ints
    ttft_ms: Floats
    tpot_ms: Floats
    e2e_ms: Floats
    cached_tokens: Ints
    router_hit_tokens: Ints
    snapshots: Floats
    imbalance: float


@dataclass(frozen=True, slots=True)
class Cluster:
    """Instances, and the workload they are to serve; each run starts with idle engines and empty caches.

    Make one with `Cluster.of`, which lays out the prefixes once for all runs.
    """

    engines: list[EngineModel]
    workload: Workload
    tree: PrefixTree
    prefix_ttl_s: float = PREFIX_TTL_S

    @classmethod
    def of(cls, engines: list[EngineModel], workload: Workload) -> Cluster:
        """Put instances before a workload."""
        if not engines:
            raise ConfigError("the cluster has no instances; expected at least one")
        return cls(engines, workload, prefix_tree(workload))

    def __post_init__(self) -> None:
        """Refuse what could never finish."""
        engine = min(self.engines, key=lambda engine: engine.kv_capacity_tokens)
        largest = int((self.workload.prompt_tokens + self.workload.output_tokens).max(initial=0))
        # Shared blocks and the tail are rounded up to whole blocks.
        needed = largest + 2 * engine.block_tokens + self.workload.block_tokens
        if needed > engine.kv_capacity_tokens:
            raise ConfigError(
                f"a request of {largest} tokens does not fit into an engine that holds {engine.kv_capacity_tokens}; "
                "expected every request to fit alone. Raise --kv-capacity-tokens or name another --engine"
            )

    def with_engine(self, engine: EngineModel) -> Cluster:
        """Return the same cluster with another engine in every instance."""
        return replace(self, engines=[engine] * len(self.engines))

    def replay(
        self, policy: Policy | None = None, *, forced: Ints | None = None, seed: int = 0, record: bool = False
    ) -> Outcome:
        """Run the workload under `policy`, or with the `forced` instance of each request.

        Random numbers are drawn once a request, in the order of the workload, so that two policies with one seed
        meet the same requests with the same luck.
        """
        n, m = len(self.workload), len(self.engines)
        rng = np.random.default_rng(seed)
        uniform, noise = rng.random(n), rng.standard_normal(n)
        sigma = np.array([engine.noise_ratio for engine in self.engines]).mean()
        state = new_state(self.engines, self.workload, self.tree, np.exp(sigma * noise - sigma**2 / 2))
        decided_by = policy or RandomChoice()
        snapshots = np.empty((n if record else 0, m, len(schema.SNAPSHOT_FIELDS)))
        imbalance = run(
            state,
            decided_by.rule,
            decided_by.parameters(),
            np.zeros(0, dtype=np.int64) if forced is None else np.ascontiguousarray(forced, dtype=np.int64),
            uniform,
            self.prefix_ttl_s,
            snapshots,
        )
        requests = np.asarray(state.requests)
        # A request of one token has no time per later token.
        later_tokens = np.where(requests["output_tokens"] > 1, requests["output_tokens"] - 1, np.nan)
        return Outcome(
            instance=requests["instance"],
            ttft_ms=(requests["first_token_s"] - requests["arrived_at_s"]) * 1e3,
            tpot_ms=(requests["finished_s"] - requests["first_token_s"]) * 1e3 / later_tokens,
            e2e_ms=(requests["finished_s"] - requests["arrived_at_s"]) * 1e3,
            cached_tokens=requests["cached_tokens"],
            router_hit_tokens=requests["router_hit_tokens"],
            snapshots=snapshots,
            imbalance=imbalance,
        )
