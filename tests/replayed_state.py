"""A policy's state on the prefixes of a whole workload, as the replay has them: runs of blocks as one node."""

from __future__ import annotations

import numpy as np

from lodestar.data.log import Workload
from lodestar.pipeline.replay.prefixes import prefix_tree
from lodestar.pipeline.replay.routing.compiled import Request
from lodestar.pipeline.replay.routing.contract import Fleet, Policy
from lodestar.pipeline.replay.routing.policy_state import PolicyState


class ReplayedState(PolicyState):
    """What `PolicyState` is, for requests of one workload."""

    def __init__(self, policy: Policy, fleet: Fleet, workload: Workload) -> None:
        super().__init__(policy, fleet, workload.block_tokens)
        tree = prefix_tree(workload)
        self.workload, self._offsets = workload, tree.offsets
        self._path, self._node_end = tree.path.astype(np.int32), tree.node_end.astype(np.int32)
        self.memory = policy.memory.memory(len(fleet.names), len(tree.node_end), len(workload))

    def of_row(self, i: int, now_s: float = 0.0) -> Request:
        """Return request i."""
        prompt_tokens, path = float(self.workload.prompt_tokens[i]), self._offsets[i : i + 2].tolist()
        return Request(i, now_s, prompt_tokens, -1, *path)


def branching_workload(requests: int, seed: int) -> Workload:
    """Prompts of 0 to 40 whole blocks of 16 tokens, many of which begin as an earlier one does, or are the same."""
    rng, prompts = np.random.default_rng(seed), [[0, 1, 2]]
    for i in range(1, requests):
        earlier = prompts[int(rng.integers(i))]
        kept = len(earlier) if rng.random() < 0.5 else int(rng.integers(len(earlier) + 1))
        own = int(rng.integers(0, 6)) if rng.random() < 0.7 else 0
        prompts.append([*earlier[:kept], *range(10 * i, 10 * i + own)][:40])
    sizes = np.array([len(blocks) for blocks in prompts])
    ids = np.unique(np.concatenate(prompts).astype(np.int64), return_inverse=True)[1].astype(np.int64)
    tail_tokens = np.where(rng.random(requests) < 0.5, 0, rng.integers(1, 16, requests))
    prompt_tokens = np.maximum(16 * sizes + tail_tokens, 1)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return Workload(np.arange(requests) / 10.0, prompt_tokens, np.ones(requests, dtype=np.int64), ids, offsets, 16)


def blocks_of_row(workload: Workload, i: int) -> list[int]:
    """Return the blocks of request i."""
    blocks: list[int] = workload.block_ids[workload.block_offsets[i] : workload.block_offsets[i + 1]].tolist()
    return blocks
