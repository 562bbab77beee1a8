"""Conversations: every turn's prompt is all that was said before, and something new."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from lodestar.data.conversations import joined_sessions
from lodestar.data.log import Floats, Ints
from lodestar.data.workloads.draws import Draws
from lodestar.data.workloads.lengths import OF_LENGTHS, Lengths
from lodestar.data.workloads.streams import Drawn, Streams
from lodestar.data.workloads.tables import require

__all__ = ["Sessions", "Turns", "enough", "first_requests", "take_turns"]


class Turns(NamedTuple):
    """Turns of conversations, those of one conversation next to each other and in order.

    Attributes:
        of: conversation of each turn.
        arrived_at_s: when it is sent.
        prompt_tokens: all that was said before, and the turn's new tokens.
        output_tokens: the answer.
    """

    of: Ints
    arrived_at_s: Floats
    prompt_tokens: Ints
    output_tokens: Ints

    def rows(self, rows: Ints) -> Turns:
        """Keep some turns."""
        return Turns(self.of[rows], self.arrived_at_s[rows], self.prompt_tokens[rows], self.output_tokens[rows])


@dataclass(frozen=True, slots=True)
class Sessions:
    """Multi-turn sessions; the recipe's arrivals are those of first turns.

    Turn k's prompt is the whole conversation before it (system prompt, earlier turns, their answers) and
    `prompt_tokens` new ones. It is sent `think_s` after the turn before it: a workload does not know how long an
    answer takes, so that pause includes it. A session ends early before a turn whose prompt and output exceed
    `context_tokens`; the first turn is always sent. All sessions share the system prompt.
    """

    turns: Lengths = field(metadata=OF_LENGTHS)
    think_s: Lengths = field(metadata=OF_LENGTHS)
    system_tokens: int = 0
    context_tokens: int | None = None

    def __post_init__(self) -> None:
        require("system_tokens", self.system_tokens, self.system_tokens >= 0, "0 or more")
        fits = self.context_tokens is None or self.context_tokens > self.system_tokens
        require("context_tokens", self.context_tokens, fits, "more than system_tokens")

    def draw(self, draws: Draws) -> Drawn:
        """Draw sessions until no later one could add to the requests that are wanted."""
        return enough(draws, lambda starts_at_s: self._conversations(draws, starts_at_s))

    def _conversations(self, draws: Draws, starts_at_s: Floats) -> Drawn:
        n = len(starts_at_s)
        opening = np.full(n, self.system_tokens, dtype=np.int64)
        turns = take_turns(draws, starts_at_s, opening, self.turns, self.think_s, self.context_tokens)
        # Stream 0 is the system prompt.
        parent = np.concatenate([[-1], np.zeros(n, dtype=np.int64)])
        streams = Streams(parent, np.concatenate([[0], opening]))
        return Drawn(turns.arrived_at_s, turns.prompt_tokens, turns.output_tokens, 1 + turns.of, streams, turns.of)


def take_turns(
    draws: Draws, starts_at_s: Floats, opening_tokens: Ints, turns: Lengths, think_s: Lengths, context: int | None
) -> Turns:
    """Draw the turns of conversations that begin with given tokens at given times."""
    count = draws.whole(turns, len(starts_at_s))
    of = np.repeat(np.arange(len(count)), count)
    new, output = draws.prompt_tokens(len(of)), draws.output_tokens(len(of))
    first = np.cumsum(count) - count
    is_first = np.zeros(len(of), dtype=np.bool_)
    is_first[first] = True
    pause_s = np.where(is_first, 0.0, draws.values(think_s, len(of)))
    said = np.cumsum(new + output)
    before = said - (said - new - output)[first][of] - output
    prompt = opening_tokens[of] + before
    waited_s = np.cumsum(pause_s)
    arrived_at_s = starts_at_s[of] + waited_s - waited_s[first][of]
    fits = is_first | (prompt + output <= (context if context is not None else np.inf))
    return Turns(of, arrived_at_s, prompt, output).rows(np.flatnonzero(fits))


def enough(draws: Draws, conversations: Callable[[Floats], Drawn]) -> Drawn:
    """Draw conversations, batch by batch, until the requests wanted have all arrived before the last one starts."""
    if draws.limit.duration_s is not None:
        return first_requests(conversations(draws.starts.until(draws.limit.duration_s)), draws)
    wanted = draws.limit.requests or 0
    # One start beyond those used tells until when the requests are complete.
    starts_at_s = draws.starts.take(64)
    drawn = conversations(starts_at_s)
    while np.searchsorted(np.sort(drawn.arrived_at_s), starts_at_s[-1]) < wanted:
        per_start = len(drawn.arrived_at_s) / len(starts_at_s)
        more = draws.starts.take(64 + int(wanted / per_start) // 4)
        drawn, starts_at_s = _both(drawn, conversations(more)), np.concatenate([starts_at_s, more])
    return first_requests(drawn, draws)


def first_requests(drawn: Drawn, draws: Draws) -> Drawn:
    """Order requests by arrival and keep those within the limit."""
    order = np.argsort(drawn.arrived_at_s, kind="stable")
    if draws.limit.duration_s is not None:
        order = order[drawn.arrived_at_s[order] < draws.limit.duration_s]
    else:
        order = order[: draws.limit.requests]
    return drawn.rows(order)


def _both(one: Drawn, other: Drawn) -> Drawn:
    """Put two batches together; the first stream of each is the same system prompt."""
    shift = len(one.streams.parent) - 1
    parent = np.where(other.streams.parent > 0, other.streams.parent + shift, other.streams.parent)
    stream = np.where(other.stream > 0, other.stream + shift, 0)
    streams = Streams(
        np.concatenate([one.streams.parent, parent[1:]]),
        np.concatenate([one.streams.fork_tokens, other.streams.fork_tokens[1:]]),
    )
    return Drawn(
        np.concatenate([one.arrived_at_s, other.arrived_at_s]),
        np.concatenate([one.prompt_tokens, other.prompt_tokens]),
        np.concatenate([one.output_tokens, other.output_tokens]),
        np.concatenate([one.stream, stream]),
        streams,
        joined_sessions([(one.session, len(one.stream)), (other.session, len(other.stream))]),
    )
