"""What a log says became of its requests, told to a policy in order of time."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.log import RequestLog, Workload
from lodestar.pipeline.replay.routing.compiled import Request, no_notice
from lodestar.pipeline.replay.routing.policy_state import PolicyState

__all__ = ["LogEvents", "known_ends"]

Floats = NDArray[np.float64]

_HIT: Final = schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)
_FIRST_TOKEN = 0


def known_ends(log: RequestLog) -> NDArray[np.bool_]:
    """Say of every request whether the log tells when it was answered, or at least when it began to be."""
    return ~np.isnan(log.e2e_ms) | ~np.isnan(log.ttft_ms)


class LogEvents:
    """The events of a log, ahead of a policy's state that has heard of those up to now.

    A request without an E2E ends as TTFT and TPOT tell, or with its first token; one without any latency ends as it is
    sent, since nobody knows when to release it: so do the counters of `complete_snapshot`.
    """

    def __init__(self, log: RequestLog, workload: Workload, state: PolicyState) -> None:
        """Lay the events out in order; nothing is told yet."""
        self._log, self._workload, self._state = log, workload, state
        self._listens = state.policy.notice is not no_notice
        self._sent: dict[int, Request] = {}
        self._times = _Times(log, workload)
        self._next = 0
        rows = np.arange(len(log))[:, None] * log.candidate
        self._last = np.where(log.candidate.any(axis=0), rows.max(axis=0, initial=0), len(log)).tolist()
        self._there = set(range(len(log.instances)))

    def arrive(self, i: int) -> Request:
        """Tell all that happened before request i arrived, list its candidates, and register it."""
        now_s = float(self._workload.arrived_at_s[i])
        if self._listens:
            self._tell_until(now_s, i)
        self._let_go(i, now_s)
        self._state.candidates = np.flatnonzero(self._log.candidate[i]).tolist()
        start, end = self._workload.block_offsets[i : i + 2]
        blocks = self._workload.block_ids[start:end].tolist()
        session = -1 if self._workload.session is None else int(self._workload.session[i])
        return self._state.request(now_s, int(self._workload.prompt_tokens[i]), blocks, session)

    def send(self, i: int, request: Request, snapshot: Floats) -> None:
        """Tell where the logged router sent the request."""
        if not self._listens:
            return
        chosen = int(self._log.chosen[i])
        if np.isnan(snapshot[chosen, _HIT]):
            snapshot = snapshot.copy()
            snapshot[chosen, _HIT] = 0.0
        self._state.sent(request, chosen, snapshot)
        self._sent[i] = request
        if np.isnan(self._times.done_s[i]):
            self._state.done(self._sent.pop(i), chosen, request.now_s)

    def _tell_until(self, now_s: float, i: int) -> None:
        times = self._times
        while self._next < len(times.order):
            row, kind = divmod(int(times.order[self._next]), 2)
            at_s = (times.first_s, times.done_s)[kind][row]
            # Of what arrives at the same time, only the requests before this one have been sent.
            if at_s > now_s or row >= i:
                return
            self._next += 1
            if row in self._sent:
                self._tell(row, kind, at_s)

    def _tell(self, row: int, kind: int, at_s: float) -> None:
        chosen = int(self._log.chosen[row])
        if kind == _FIRST_TOKEN:
            self._state.first_token(self._sent[row], chosen, at_s)
            return
        times = self._times
        self._state.done(
            self._sent.pop(row),
            chosen,
            at_s,
            queue_s=times.queue_s[row],
            prefill_s=times.prefill_s[row],
            decode_s=times.decode_s[row],
            output_tokens=float(self._workload.output_tokens[row]),
        )

    def _let_go(self, i: int, now_s: float) -> None:
        """Take instances off the list that are never candidates again."""
        for j in [j for j in self._there if self._last[j] < i]:
            self._there.remove(j)
            if j not in self._state.candidates:
                self._state.candidates.append(j)
            self._state.leave(j, now_s)


class _Times:
    """When the first token and the last came, and how long each phase took; NaN where nothing tells.

    Attributes:
        first_s: shape (n,).
        done_s: shape (n,).
        queue_s: shape (n,).
        prefill_s: shape (n,).
        decode_s: shape (n,).
        order: twice the row, plus 1 for the end of it, in order of time.
    """

    def __init__(self, log: RequestLog, workload: Workload) -> None:
        arrived_s = workload.arrived_at_s
        spread_ms = np.where(np.isnan(log.tpot_ms), 0.0, log.tpot_ms) * np.maximum(workload.output_tokens - 1, 0)
        e2e_ms = np.where(np.isnan(log.e2e_ms), log.ttft_ms + spread_ms, log.e2e_ms)
        self.first_s = arrived_s + np.maximum(log.ttft_ms, 0.0) / 1e3
        self.done_s = np.fmax(arrived_s + np.maximum(e2e_ms, 0.0) / 1e3, self.first_s)
        unknown = np.full(len(log), np.nan)
        self.queue_s = log.phases.get(schema.QUEUE_MS, unknown) / 1e3
        told_s = log.phases.get(schema.PREFILL_MS, unknown) / 1e3
        self.prefill_s = np.where(np.isnan(told_s), log.ttft_ms / 1e3 - self.queue_s, told_s)
        told_s = log.phases.get(schema.DECODE_MS, unknown) / 1e3
        self.decode_s = np.where(np.isnan(told_s), (e2e_ms - log.ttft_ms) / 1e3, told_s)
        at_s = np.stack([self.first_s, self.done_s], axis=1).ravel()
        # A stable sort: of one time, the requests in order, and the first token before the end.
        order = np.argsort(at_s, kind="stable")
        self.order = order[~np.isnan(at_s[order])]
