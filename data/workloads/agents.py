"""Agent trees: a session's turns spawn sub-agents, which know what their parent knew and then go their own way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from lodestar.data.log import Floats, Ints
from lodestar.data.workloads.draws import Draws
from lodestar.data.workloads.lengths import OF_LENGTHS, Lengths
from lodestar.data.workloads.sessions import Turns, enough, take_turns
from lodestar.data.workloads.streams import Drawn, Streams
from lodestar.data.workloads.tables import require

__all__ = ["Agents"]


class _Level(NamedTuple):
    """Conversations of one depth: their turns with the stream and tree of each, and what each stream forks from."""

    turns: Turns
    stream: Ints
    tree: Ints
    streams: Streams


@dataclass(frozen=True, slots=True)
class Agents:
    """Sessions whose turns spawn sub-agents; the recipe's arrivals are those of root sessions.

    A root session is a multi-turn session. Each conversation spawns `spawned` sub-agents (rounded, may be none), each
    from a turn of it drawn uniformly. A sub-agent's prompt begins with its parent's whole conversation up to and
    including that turn's answer, so they share those blocks, and diverges from there. It sends its first turn
    `spawn_s` after the turn that it sprang from. Sub-agents spawn their own down to `depth` levels below the root.
    """

    turns: Lengths = field(metadata=OF_LENGTHS)
    think_s: Lengths = field(metadata=OF_LENGTHS)
    spawned: Lengths = field(metadata=OF_LENGTHS)
    spawn_s: Lengths = field(metadata=OF_LENGTHS)
    agent_turns: Lengths = field(metadata=OF_LENGTHS)
    depth: int = 1
    system_tokens: int = 0
    context_tokens: int | None = None

    def __post_init__(self) -> None:
        require("depth", self.depth, 0 <= self.depth <= 16, "0 to 16")
        require("system_tokens", self.system_tokens, self.system_tokens >= 0, "0 or more")
        fits = self.context_tokens is None or self.context_tokens > self.system_tokens
        require("context_tokens", self.context_tokens, fits, "more than system_tokens")

    def draw(self, draws: Draws) -> Drawn:
        """Draw trees until no later one could add to the requests that are wanted."""
        return enough(draws, lambda starts_at_s: self._trees(draws, starts_at_s))

    def _trees(self, draws: Draws, starts_at_s: Floats) -> Drawn:
        n = len(starts_at_s)
        opening = np.full(n, self.system_tokens, dtype=np.int64)
        turns = take_turns(draws, starts_at_s, opening, self.turns, self.think_s, self.context_tokens)
        # Stream 0 is the system prompt.
        root = Streams(np.array([-1]), np.array([0]))
        levels = [_Level(turns, 1 + turns.of, turns.of, Streams(np.zeros(n, dtype=np.int64), opening))]
        for _ in range(self.depth):
            levels.append(self._spawn(draws, levels[-1], 1 + sum(len(level.streams.parent) for level in levels)))
        every = [level.turns for level in levels]
        forest = [root, *(level.streams for level in levels)]
        return Drawn(
            np.concatenate([turns.arrived_at_s for turns in every]),
            np.concatenate([turns.prompt_tokens for turns in every]),
            np.concatenate([turns.output_tokens for turns in every]),
            np.concatenate([level.stream for level in levels]),
            Streams(
                np.concatenate([streams.parent for streams in forest]),
                np.concatenate([streams.fork_tokens for streams in forest]),
            ),
            np.concatenate([level.tree for level in levels]),
        )

    def _spawn(self, draws: Draws, above: _Level, first_stream: int) -> _Level:
        """Draw the sub-agents of a level's conversations."""
        turns = above.turns
        _, first, size = np.unique(turns.of, return_index=True, return_counts=True)
        spawned = np.rint(draws.values(self.spawned, len(first))).astype(np.int64)
        conversation = np.repeat(np.arange(len(first)), spawned)
        turn = first[conversation] + draws.rng.integers(0, size[conversation])
        opening = turns.prompt_tokens[turn] + turns.output_tokens[turn]
        starts_at_s = turns.arrived_at_s[turn] + draws.values(self.spawn_s, len(turn))
        own = take_turns(draws, starts_at_s, opening, self.agent_turns, self.think_s, self.context_tokens)
        # A first turn that does not fit the context is not sent: the spawn fails, as it would in an engine.
        fits = own.prompt_tokens + own.output_tokens <= (self.context_tokens or np.inf)
        kept = own.rows(np.flatnonzero(fits))
        streams = Streams(above.stream[turn], opening)
        return _Level(kept, first_stream + kept.of, above.tree[turn[kept.of]], streams)
