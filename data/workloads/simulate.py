"""A recipe and a seed into a workload."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from lodestar.data.errors import ConfigError, DataError
from lodestar.data.log import Workload
from lodestar.data.workloads.arrivals import Limit, Starts
from lodestar.data.workloads.draws import Draws
from lodestar.data.workloads.lengths import Load
from lodestar.data.workloads.recipe import Content, Part, Recipe, Traced
from lodestar.data.workloads.streams import as_workload
from lodestar.data.workloads.trace import from_trace
from lodestar.data.workloads.transforms.merge import join
from lodestar.data.workloads.transforms.slice import slice_rows, slice_time

__all__ = ["no_sources", "simulate"]


def no_sources(source: str) -> Workload:
    """Refuse to load anything."""
    raise ConfigError(
        f"source {source!r} cannot be read here; expected a recipe without sources. Run lodestar simulate"
    )


def simulate(recipe: Recipe, seed: int, load: Load = no_sources) -> Workload:
    """Draw a workload; the same recipe and seed give the same one, to the byte.

    A phase begins where the one before it ends: after its duration, or at its last arrival, from where the new process
    draws its first gap. Phases share no prefixes. `load` gives the workload that a source names.
    """
    load = cache(load)
    parts: list[Workload] = []
    starts_s: list[float] = []
    begins_s = 0.0
    for i, part in enumerate(recipe.parts):
        made, first_s = _simulated(part, recipe.block_tokens, np.random.SeedSequence([seed, i]), load)
        parts.append(made)
        starts_s.append(begins_s + first_s)
        lasts_s = part.limit.duration_s
        begins_s += lasts_s if lasts_s is not None else first_s + float(made.arrived_at_s[-1])
    return parts[0] if len(parts) == 1 else join(parts, starts_s)


def _simulated(part: Part, block_tokens: int, seed: np.random.SeedSequence, load: Load) -> tuple[Workload, float]:
    """Draw one phase, and say how long after its beginning the first request arrives."""
    # Chance of their own for the arrivals and for all else.
    arrivals, rest = (np.random.default_rng(child) for child in seed.spawn(2))
    if isinstance(part.content, Traced):
        return _from_trace(part.content, part.limit, arrivals, load)
    return _drawn(part.content, part.limit, block_tokens, arrivals, rest, load)


def _drawn(
    content: Content,
    limit: Limit,
    block_tokens: int,
    arrivals: np.random.Generator,
    rest: np.random.Generator,
    load: Load,
) -> tuple[Workload, float]:
    starts = Starts(content.arrivals, arrivals)
    drawn = content.prefixes.draw(Draws(rest, starts, limit, content.prompt, content.output, block_tokens, load))
    _require_some(len(drawn.arrived_at_s), limit)
    return as_workload(drawn, block_tokens), float(drawn.arrived_at_s[0])


def _from_trace(content: Traced, limit: Limit, arrivals: np.random.Generator, load: Load) -> tuple[Workload, float]:
    """Take requests of a trace in its order, at its own times or at those of the arrival process."""
    workload = from_trace(content.trace, load)
    if content.arrivals is None:
        if limit.duration_s is not None:
            return slice_time(workload, 0.0, limit.duration_s), 0.0
        return _head(workload, limit.requests), 0.0
    every = Limit(requests=len(workload)) if limit == Limit() else limit
    arrived_at_s = Starts(content.arrivals, arrivals).first(every)
    _require_some(len(arrived_at_s), limit)
    first_s = float(arrived_at_s[0])
    return replace(_head(workload, len(arrived_at_s)), arrived_at_s=arrived_at_s - first_s), first_s


def _head(workload: Workload, requests: int | None) -> Workload:
    if requests is not None and requests > len(workload):
        raise DataError(
            f"the trace gives {len(workload)} requests, {requests} are wanted; expected no more. "
            "Raise trace.copies or trace.window_s, or ask for fewer"
        )
    return workload if requests is None else slice_rows(workload, 0, requests)


def _require_some(requests: int, limit: Limit) -> None:
    if requests == 0:
        raise DataError(f"no request arrives within {limit.duration_s:g} s; expected one or more. Raise duration_s")
