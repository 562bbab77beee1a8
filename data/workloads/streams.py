"""Prompts as beginnings of token streams that branch: how shared prefixes become block ids."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lodestar.data.conversations import numbered_sessions
from lodestar.data.log import Floats, Ints, Workload

__all__ = ["Drawn", "Streams", "as_workload", "blocks_of"]


class Streams(NamedTuple):
    """A forest of token streams.

    Stream s has the first `fork_tokens[s]` tokens of stream `parent[s]`, then tokens of its own; parents come before
    their children, and a stream of its own from the first token has parent -1 and forks at 0.
    """

    parent: Ints
    fork_tokens: Ints


class Drawn(NamedTuple):
    """Requests as a recipe draws them: each prompt is the beginning of a stream. Rows are in no order.

    `session` is the conversation, or the tree of agents, of each request; None where there are none.
    """

    arrived_at_s: Floats
    prompt_tokens: Ints
    output_tokens: Ints
    stream: Ints
    streams: Streams
    session: Ints | None = None

    def rows(self, rows: Ints) -> Drawn:
        """Keep some requests, in the order given."""
        columns = self.arrived_at_s[rows], self.prompt_tokens[rows], self.output_tokens[rows], self.stream[rows]
        return Drawn(*columns, self.streams, None if self.session is None else self.session[rows])


def blocks_of(prompt_tokens: Ints, stream: Ints, streams: Streams, block_tokens: int) -> tuple[Ints, Ints]:
    """Number the whole blocks of every prompt, dense from 0: ids and offsets as a `Workload` has them.

    >>> streams = Streams(parent=np.array([-1, 0]), fork_tokens=np.array([0, 20]))
    >>> ids, offsets = blocks_of(np.array([32, 50]), np.array([0, 1]), streams, block_tokens=16)
    >>> ids.tolist(), offsets.tolist()
    ([0, 1, 0, 2, 3], [0, 2, 5])
    """
    count = prompt_tokens // block_tokens
    offsets = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    depth = np.arange(offsets[-1]) - np.repeat(offsets[:-1], count)
    holder = np.repeat(stream, count)
    fork = streams.fork_tokens // block_tokens
    # A block before the fork belongs to an ancestor: climb until none does.
    above = np.flatnonzero(depth < fork[holder])
    while len(above):
        holder[above] = streams.parent[holder[above]]
        above = above[depth[above] < fork[holder[above]]]
    end = fork.copy()
    np.maximum.at(end, holder, depth + 1)
    first_id = np.cumsum(end - fork) - (end - fork)
    return first_id[holder] + depth - fork[holder], offsets


def as_workload(drawn: Drawn, block_tokens: int) -> Workload:
    """Make a workload of drawn requests, in the order given; arrivals count from the first."""
    ids, offsets = blocks_of(drawn.prompt_tokens, drawn.stream, drawn.streams, block_tokens)
    return Workload(
        arrived_at_s=drawn.arrived_at_s - drawn.arrived_at_s[0],
        prompt_tokens=drawn.prompt_tokens,
        output_tokens=drawn.output_tokens,
        block_ids=ids,
        block_offsets=offsets,
        block_tokens=block_tokens,
        session=None if drawn.session is None else numbered_sessions(drawn.session),
    )
