"""Workloads for tests: from presets, and at random."""

from __future__ import annotations

import tomllib

import numpy as np
from hypothesis import strategies as st

from lodestar.data.log import Ints, Workload
from lodestar.data.workloads.presets import preset_text
from lodestar.data.workloads.recipe import recipe_of, with_settings
from lodestar.data.workloads.simulate import simulate
from lodestar.data.workloads.streams import Drawn, Streams, as_workload


def made(preset: str, *settings: str, seed: int = 0) -> Workload:
    """Make a preset's workload with some keys set."""
    return simulate(recipe_of(with_settings(tomllib.loads(preset_text(preset)), settings)), seed)


def sessions(workload: Workload) -> Ints:
    """Return the conversation of each request, -1 for all where none has one."""
    return np.full(len(workload), -1) if workload.session is None else workload.session


def same(one: Workload, other: Workload, to_s: float = 0.0) -> bool:
    """Tell whether two workloads are the same, arrivals to within `to_s`."""
    return (
        len(one) == len(other)
        and one.block_tokens == other.block_tokens
        and np.array_equal(sessions(one), sessions(other))
        and bool(np.allclose(one.arrived_at_s, other.arrived_at_s, rtol=0, atol=to_s))
        and all(
            np.array_equal(getattr(one, name), getattr(other, name))
            for name in ("prompt_tokens", "output_tokens", "block_ids", "block_offsets")
        )
    )


@st.composite
def workloads(draw: st.DrawFn, block_tokens: int = 16) -> Workload:
    """Small workloads whose prompts begin some streams that branch, at whole milliseconds."""
    n, streams = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    parent = [draw(st.integers(-1, i - 1)) for i in range(streams)]
    fork = [draw(st.integers(0, 60)) if p >= 0 else 0 for p in parent]

    def column(low: int, high: int) -> Ints:
        return np.array([draw(st.integers(low, high)) for _ in range(n)], dtype=np.int64)

    forest = Streams(np.array(parent, dtype=np.int64), np.array(fork, dtype=np.int64))
    arrived_at_s = np.sort(column(0, 60_000)) / 1e3
    session = column(-1, 3) if draw(st.booleans()) else None
    requests = Drawn(arrived_at_s, column(1, 120), column(0, 9), column(0, streams - 1), forest, session)
    return as_workload(requests, block_tokens)
