"""Prompts that share prefixes, and caches of engines that store and evict their blocks: what a KV router is told of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

__all__ = ["EngineCache", "Prompt", "Prompts"]


class Prompt(NamedTuple):
    """A prompt.

    Attributes:
        blocks: id of every whole block; equal id, equal prompt up to and including it.
        tokens: all of it, with those beyond the last whole block.
    """

    blocks: tuple[int, ...]
    tokens: list[int]


class Prompts:
    """Each continues an earlier one from anywhere, repeats one, or begins anew."""

    def __init__(self, rng: np.random.Generator, block_tokens: int, longest_blocks: int) -> None:
        self._rng, self._block_tokens, self._longest = rng, block_tokens, longest_blocks
        self._made: list[Prompt] = [Prompt((), [])]
        self._blocks = 0
        self.tokens_of: dict[int, list[int]] = {}

    def next(self) -> Prompt:
        """Make one of at least one token; about one in four ends with a whole block."""
        rng = self._rng
        recent = self._made[-60:]
        earlier = recent[int(rng.integers(len(recent)))].blocks
        blocks = earlier[: int(rng.integers(len(earlier) + 1))] if rng.random() < 0.8 else earlier
        room = max(self._longest - len(blocks), 0)
        new = 0 if blocks and rng.random() < 0.25 else int(rng.integers(room + 1))
        blocks += tuple(self._new_block() for _ in range(new))
        tail = 0 if blocks and rng.random() < 0.25 else int(rng.integers(1, self._block_tokens))
        tokens = [token for block in blocks for token in self.tokens_of[block]] + self._new_tokens(tail)
        prompt = Prompt(blocks, tokens)
        self._made.append(prompt)
        return prompt

    def _new_block(self) -> int:
        self._blocks += 1
        self.tokens_of[self._blocks] = self._new_tokens(self._block_tokens)
        return self._blocks

    def _new_tokens(self, count: int) -> list[int]:
        tokens: list[int] = self._rng.integers(0, 2**30, count).tolist()
        return tokens


@dataclass(slots=True)
class EngineCache:
    """The blocks that one engine holds, and the events that it publishes as they come and go."""

    block_tokens: int
    capacity_blocks: int
    #: Parent of each block held, the least recently used first.
    held: dict[int, int | None] = field(default_factory=dict)

    def overlap_blocks(self, blocks: Sequence[int]) -> int:
        """Count the blocks held from the start of a prompt on."""
        for depth, block in enumerate(blocks):
            if block not in self.held:
                return depth
        return len(blocks)

    def compute(self, prompt: Prompt) -> list[list[Any]]:
        """Use a prompt: keep its blocks, and evict others that nothing held continues."""
        known = self.overlap_blocks(prompt.blocks)
        parents = (None, *prompt.blocks[:-1])
        for block, parent in zip(prompt.blocks, parents, strict=False):
            self.held.pop(block, None)
            self.held[block] = parent
        events: list[list[Any]] = []
        if known < len(prompt.blocks):
            tokens = prompt.tokens[known * self.block_tokens : len(prompt.blocks) * self.block_tokens]
            events.append(["BlockStored", list(prompt.blocks[known:]), parents[known], tokens, self.block_tokens, None])
        evicted = self._evict()
        return [*events, ["BlockRemoved", evicted, None]] if evicted else events

    def clear(self) -> list[list[Any]]:
        """Lose everything."""
        self.held.clear()
        return [["AllBlocksCleared"]]

    def _evict(self) -> list[int]:
        evicted: list[int] = []
        while len(self.held) > self.capacity_blocks:
            continued = set(self.held.values())
            block = next(block for block in self.held if block not in continued)
            del self.held[block]
            evicted.append(block)
        return evicted
