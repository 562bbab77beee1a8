"""A dataset in memory: plain arrays, one row a request in dispatch order."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["Inferred", "RequestLog", "Workload"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Inferred:
    """What a log left out, how it was found and how well.

    Attributes:
        column: what was inferred.
        method: how, in words.
        quality_name: what `quality` measures; None where nothing measures it.
        quality: a figure that the log itself bears out.
        note: what else to know.

    >>> str(Inferred("arrivals", "not logged: from the order of dispatch", "share of counts met", 0.91))
    'not logged: from the order of dispatch; share of counts met: 0.91'
    """

    column: str
    method: str
    quality_name: str | None = None
    quality: float | None = None
    note: str = ""

    def __str__(self) -> str:
        """Say it in words."""
        known = self.quality_name is not None and self.quality is not None
        quality = f"{self.quality_name}: {self.quality:.4g}" if known else ""
        return "; ".join(part for part in (self.method, quality, self.note) if part)


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests without decisions, complete enough to replay.

    Attributes:
        arrived_at_s: arrival times, non-decreasing, shape (n,).
        prompt_tokens: shape (n,).
        output_tokens: shape (n,).
        block_ids: prefix blocks of all requests one after the other, as dense ids 0…B-1; equal id = equal prefix
            up to and including this block.
        block_offsets: request i owns ``block_ids[block_offsets[i]:block_offsets[i + 1]]``, shape (n + 1,).
        block_tokens: prompt tokens in one block.
        priority: lower goes first in engines that schedule by it, shape (n,); None: all alike.
        cancel_after_s: after its arrival, a client leaves if it has not been served, shape (n,), inf: never; None: no
            client does.
        session: conversation of each request, numbered from 0 in the order in which they begin, -1: none, shape (n,);
            None: no request names one.
        inferred: what the log left out → how it was inferred and how well, in words, for every output.
        found: the same with figures, for what `workload_of` inferred.
    """

    arrived_at_s: Floats
    prompt_tokens: Ints
    output_tokens: Ints
    block_ids: Ints
    block_offsets: Ints
    block_tokens: int
    priority: Ints | None = None
    cancel_after_s: Floats | None = None
    session: Ints | None = None
    inferred: dict[str, str] = field(default_factory=dict)
    found: tuple[Inferred, ...] = ()

    def __len__(self) -> int:
        """Return the number of requests."""
        return len(self.prompt_tokens)

    def head(self, requests: int) -> Workload:
        """Return the first requests alone."""
        offsets = self.block_offsets[: requests + 1]
        return replace(
            self,
            arrived_at_s=self.arrived_at_s[:requests],
            prompt_tokens=self.prompt_tokens[:requests],
            output_tokens=self.output_tokens[:requests],
            block_ids=self.block_ids[: offsets[-1]],
            block_offsets=offsets,
            priority=None if self.priority is None else self.priority[:requests],
            cancel_after_s=None if self.cancel_after_s is None else self.cancel_after_s[:requests],
            session=None if self.session is None else self.session[:requests],
        )


@dataclass(frozen=True, slots=True)
class RequestLog:
    """A dataset as its log has it: NaN (or -1 for `chosen`) where the log does not say.

    Attributes:
        dataset: its name.
        instances: names, by instance index, length m.
        request_id: as logged, length n.
        arrived_at_s: shape (n,).
        prompt_tokens: shape (n,).
        output_tokens: shape (n,).
        chosen: instance index of the decision, shape (n,), -1 where none is logged.
        propensity: probability of the chosen instance, shape (n,).
        policy: name of the logging policy where one name holds for all decisions.
        candidate: whether instance j was a candidate of request i, shape (n, m).
        snapshot: snapshot field → values, shape (n, m); see ``schema.SNAPSHOT_FIELDS``.
        probability: of every candidate, shape (n, m).
        ttft_ms: shape (n,).
        tpot_ms: shape (n,).
        e2e_ms: shape (n,).
        block_ids: as in `Workload`; empty where no blocks are logged.
        block_offsets: as in `Workload`.
        block_tokens: None where no blocks are logged.
        phases: phase of a latency as the engine tells it → milliseconds, shape (n,); see ``schema.PHASES``. Empty
            where the log tells none.
        session: as in `Workload`.
        cut_off: of requests that were cancelled or timed out: latency → milliseconds until then, shape (n,), NaN
            for all others. E2E says when; TTFT and TPOT are there if a first token had come. Empty where none was.
        found: what was added to the log from elsewhere, and how.
        loggers: names of the logging policies where the decisions name more than one, in the order of their names.
        logger: which of them made the decision, shape (n,), -1 where none is logged; None where there is one at most.
    """

    dataset: str
    instances: list[str]
    request_id: list[str]
    arrived_at_s: Floats
    prompt_tokens: Ints
    output_tokens: Ints
    chosen: Ints
    propensity: Floats
    policy: str | None
    candidate: NDArray[np.bool_]
    snapshot: dict[str, Floats]
    probability: Floats
    ttft_ms: Floats
    tpot_ms: Floats
    e2e_ms: Floats
    block_ids: Ints
    block_offsets: Ints
    block_tokens: int | None
    phases: dict[str, Floats] = field(default_factory=dict)
    session: Ints | None = None
    cut_off: dict[str, Floats] = field(default_factory=dict)
    found: tuple[Inferred, ...] = ()
    loggers: tuple[str, ...] = ()
    logger: Ints | None = None

    def __len__(self) -> int:
        """Return the number of requests."""
        return len(self.prompt_tokens)
