"""Workloads together: at the same time, or one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar.data.conversations import joined_sessions
from lodestar.data.errors import DataError
from lodestar.data.log import Workload
from lodestar.data.workloads.tables import require
from lodestar.data.workloads.transforms.rows import dense, pick

__all__ = ["join", "merge", "switch"]


def merge(one: Workload, other: Workload, share_blocks: bool = False) -> Workload:
    """Put two workloads together at the same time; where both arrive at once, the first is first.

    Their prefixes are kept apart, unless `share_blocks` says that equal block ids stand for equal prefixes.
    """
    return join([one, other], [0.0, 0.0], share_blocks)


def switch(one: Workload, other: Workload, at_s: float, share_blocks: bool = False) -> Workload:
    """Keep what arrives before a time, and from then on have another workload, from its start to its end."""
    span_s = float(one.arrived_at_s[-1])
    require("at_s", at_s, 0 < at_s < np.inf, f"more than 0; the last request arrives at {span_s:g}")
    kept = one.head(int(np.searchsorted(one.arrived_at_s, at_s)))
    return join([kept, other], [0.0, at_s], share_blocks)


def join(parts: Sequence[Workload], starts_s: Sequence[float], share_blocks: bool = False) -> Workload:
    """Put workloads together, each from its own time on; none has a conversation of another."""
    sizes = sorted({part.block_tokens for part in parts})
    if len(sizes) > 1:
        raise DataError(
            f"workloads have prefix blocks of {sizes[0]} and of {sizes[1]} tokens; expected one size. "
            "Make both with the same block_tokens"
        )
    arrived_at_s = np.concatenate([start + part.arrived_at_s for start, part in zip(starts_s, parts, strict=True)])
    ends = [int(part.block_ids.max(initial=-1)) + 1 for part in parts]
    shifts = np.zeros(len(parts), dtype=np.int64) if share_blocks else np.cumsum([0, *ends[:-1]])
    count = np.concatenate([np.diff(part.block_offsets) for part in parts])
    every = Workload(
        arrived_at_s=arrived_at_s,
        prompt_tokens=np.concatenate([part.prompt_tokens for part in parts]),
        output_tokens=np.concatenate([part.output_tokens for part in parts]),
        block_ids=np.concatenate([part.block_ids + shift for part, shift in zip(parts, shifts, strict=True)]),
        block_offsets=np.concatenate([[0], np.cumsum(count)]).astype(np.int64),
        block_tokens=sizes[0],
        priority=_joined([(part.priority, len(part)) for part in parts], 0),
        cancel_after_s=_joined([(part.cancel_after_s, len(part)) for part in parts], np.inf),
        session=joined_sessions([(part.session, len(part)) for part in parts]),
        inferred=_inferred(parts),
    )
    if share_blocks:
        _require_one_meaning(every)
    return pick(every, np.argsort(arrived_at_s, kind="stable"))


def _joined(parts: Sequence[tuple[NDArray[Any] | None, int]], otherwise: float) -> NDArray[Any] | None:
    """Put values one after the other, with `otherwise` for parts that have none; None if no part has any."""
    there = [values for values, _ in parts if values is not None]
    if not there:
        return None
    return np.concatenate(
        [np.full(count, otherwise, dtype=there[0].dtype) if values is None else values for values, count in parts]
    )


def _require_one_meaning(workload: Workload) -> None:
    """Refuse blocks that follow different blocks in different requests: their ids cannot mean the same prefix."""
    ids, offsets = workload.block_ids, workload.block_offsets
    if not len(ids):
        return
    number = dense(ids)
    previous = np.concatenate([[-1], number[:-1]])
    previous[offsets[:-1][np.diff(offsets) > 0]] = -1
    parent = np.empty(int(number.max()) + 1, dtype=np.int64)
    parent[number] = previous
    wrong = np.flatnonzero(parent[number] != previous)
    if len(wrong):
        raise DataError(
            f"block {int(ids[wrong[0]])} follows different blocks in the two workloads, so equal ids are different "
            "prefixes; expected one numbering. Merge without sharing blocks"
        )


def _inferred(parts: Sequence[Workload]) -> dict[str, str]:
    """Keep what was inferred of any part, said once where all say the same."""
    said: dict[str, list[str]] = {}
    for part in parts:
        for what, how in part.inferred.items():
            if how not in said.setdefault(what, []):
                said[what].append(how)
    return {what: " · ".join(hows) for what, hows in said.items()}
