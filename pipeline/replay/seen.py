"""What a policy in plain Python sees: the request, and what the router knows of every instance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.log import Workload

__all__ = ["RequestSeen", "SnapshotSeen"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_INFLIGHT = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)


class RequestSeen:
    """What a router knows of the request that it decides on; one object for all decisions of a run.

    Attributes:
        index: its place in the workload, from 0.
        prompt_tokens: length of its prompt.
        now_s: the time of the decision, in seconds from the first arrival.
    """

    __slots__ = ("_block_ids", "_block_offsets", "_session", "index", "now_s", "prompt_tokens")

    def __init__(self, workload: Workload) -> None:
        self._block_ids, self._block_offsets = workload.block_ids, workload.block_offsets
        self._session = workload.session
        self.index, self.prompt_tokens, self.now_s = -1, 0, 0.0

    @property
    def blocks(self) -> Ints:
        """Ids of its prefix blocks: equal id, equal prompt up to and including this block."""
        return self._block_ids[self._block_offsets[self.index] : self._block_offsets[self.index + 1]]

    @property
    def session(self) -> int:
        """The conversation it belongs to, from 0; -1 if it names none."""
        return -1 if self._session is None else int(self._session[self.index])


class SnapshotSeen:
    """What the router knows of every instance: one vector for each field of a snapshot, by its name.

    The vectors are views that are filled anew before each decision: copy what is to be kept. An instance that is no
    candidate has NaN everywhere, and a candidate has NaN where the router does not know.
    """

    __slots__ = ("_candidate", "_there", *schema.SNAPSHOT_FIELDS)

    hit_ratio: Floats
    inflight_requests: Floats
    running_requests: Floats
    waiting_requests: Floats
    kv_usage_ratio: Floats
    inflight_prefill_requests: Floats
    inflight_decode_requests: Floats
    prefill_tokens: Floats
    decode_tokens: Floats
    last_access_age_s: Floats

    def __init__(self, buffer: Floats, candidate: Bools | None = None) -> None:
        view = buffer.view()
        view.flags.writeable = False
        for k, name in enumerate(schema.SNAPSHOT_FIELDS):
            setattr(self, name, view[:, k])
        # A gateway counts its own requests in flight, so that in a replay every candidate has a number here.
        self._there = view[:, _INFLIGHT]
        self._candidate = candidate

    @property
    def candidates(self) -> Ints:
        """Indices of the instances that can be chosen, ascending.

        >>> SnapshotSeen(np.array([[0.0] * 10, [np.nan] * 10, [1.0] * 10])).candidates.tolist()
        [0, 2]
        """
        return np.flatnonzero(self._there == self._there if self._candidate is None else self._candidate)

    def has(self, j: int) -> bool:
        """Say whether instance j can be chosen."""
        if not 0 <= j < len(self._there):
            return False
        if self._candidate is not None:
            return bool(self._candidate.item(j))
        return self._there.item(j) == self._there.item(j)
