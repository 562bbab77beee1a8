"""Requests on their own, or in groups that share the beginning of their prompts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lodestar.data.log import Ints
from lodestar.data.workloads.draws import Draws
from lodestar.data.workloads.streams import Drawn, Streams
from lodestar.data.workloads.tables import require

__all__ = ["Alone", "Shared"]


@dataclass(frozen=True, slots=True)
class Alone:
    """No two requests share a prefix."""

    def draw(self, draws: Draws) -> Drawn:
        """Give every request a stream of its own."""
        arrived_at_s = draws.starts.first(draws.limit)
        n = len(arrived_at_s)
        streams = Streams(np.full(n, -1, dtype=np.int64), np.zeros(n, dtype=np.int64))
        return Drawn(arrived_at_s, draws.prompt_tokens(n), draws.output_tokens(n), np.arange(n), streams)


@dataclass(frozen=True, slots=True)
class Shared:
    """Groups of requests with a common prefix, scattered over the whole run, as in the Lodestar paper's sharing sets.

    A group has one prompt length, and its requests share the first `sharing_ratio` of it, in whole blocks. Rounding to
    blocks is carried from group to group, so that over all requests the share of prompt tokens that lie in a shared
    prefix is the one asked for, to within a block a request of one group. Of several ratios, as many groups have each.
    """

    sharing_ratio: tuple[float, ...]
    requests_per_prefix: int = 10

    def __post_init__(self) -> None:
        for ratio in self.sharing_ratio:
            require("sharing_ratio", ratio, 0 <= ratio <= 1, "0 to 1")
        require("requests_per_prefix", self.requests_per_prefix, self.requests_per_prefix >= 2, "2 or more")

    def draw(self, draws: Draws) -> Drawn:
        """Draw groups, and deal them to the arrivals."""
        arrived_at_s = draws.starts.first(draws.limit)
        n = len(arrived_at_s)
        groups = -(-n // self.requests_per_prefix)
        prompt_of_group = draws.prompt_tokens(groups)
        group = draws.rng.permutation(np.arange(n) // self.requests_per_prefix)
        ratio = draws.rng.permutation(np.resize(self.sharing_ratio, groups))
        blocks = self._blocks(prompt_of_group, ratio, np.bincount(group, minlength=groups), draws.block_tokens)
        # Streams 0 … groups-1 are the prefixes, the rest are the requests.
        parent = np.concatenate([np.full(groups, -1), group])
        fork_tokens = np.concatenate([np.zeros(groups, dtype=np.int64), blocks[group] * draws.block_tokens])
        stream = groups + np.arange(n)
        return Drawn(arrived_at_s, prompt_of_group[group], draws.output_tokens(n), stream, Streams(parent, fork_tokens))

    @staticmethod
    def _blocks(prompt_tokens: Ints, ratio: np.ndarray, size: Ints, block_tokens: int) -> Ints:
        """Round the shared part of each group to whole blocks, carrying what is left over to the next."""
        # A group of one shares with nobody: the others carry its part.
        wanted = np.cumsum(prompt_tokens * ratio * size / block_tokens)
        blocks, given = np.zeros(len(size), dtype=np.int64), 0.0
        for g in np.flatnonzero(size > 1):
            rounded = np.rint((wanted[g] - given) / size[g])
            blocks[g] = min(max(rounded, 0), prompt_tokens[g] // block_tokens)
            given += blocks[g] * size[g]
        return blocks
