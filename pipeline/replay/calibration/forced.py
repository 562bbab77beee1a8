"""The logged choices replayed: what latencies an engine would have given, beside what was logged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema as s
from lodestar.data.log import RequestLog, Workload
from lodestar.data.reconstruction.reconstruct import tpot_ms_of
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.calibration.distance import distance
from lodestar.pipeline.replay.calibration.stretch import Stretch
from lodestar.pipeline.replay.cluster import Cluster, Outcome

__all__ = ["Forced", "known_choices"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_FLOOR_MS: Final = 1e-3  # a microsecond: an outcome of 0 ms has no logarithm
_FEWEST_PREFILLS: Final = 20
#: A request that never gets its token in the replay is as wrong as one that gets it so much too late.
_NEVER: Final = float(np.log(10.0))


def known_choices(log: RequestLog) -> Ints:
    """Return the logged choices; a request whose choice is not logged goes to the instances in turn."""
    instances = max(1, len(log.instances))
    return np.where(log.chosen >= 0, log.chosen, np.arange(len(log)) % instances).astype(np.int64)


class Forced:
    """A stretch of a log before a cluster that is to give back its latencies.

    Latencies of all kinds stand one after the other, as logs: TTFT, TPOT (from E2E where only that is logged), and
    the time from a request's first step to its first token where the engine tells it.

    Attributes:
        cluster: with the workload of the stretch.
        choices: instance of each request of the stretch.
        row: request of each latency.
        instance: of each latency.
        parts: where each kind of latency lies.
        logged: logs of the logged latencies.
        evaluations: replays so far.
    """

    def __init__(
        self,
        log: RequestLog,
        workload: Workload,
        stretch: Stretch,
        engine: EngineModel,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Lay out the stretch before as many of `engine` as the log has instances."""
        instances, here = max(1, len(log.instances)), slice(stretch.first, stretch.end)
        self.cluster = Cluster.of([engine] * instances, stretch.of(workload))
        self.choices = known_choices(log)[here]
        self.evaluations = 0
        self._progress = progress
        # Where a request without a logged choice went is a guess: it loads the engines, but is not compared.
        told = (log.chosen[here] >= 0) | (instances == 1)
        told &= np.arange(stretch.end - stretch.first) >= stretch.counted - stretch.first
        latencies = {name: values[here] for name, values in _latencies(log, workload).items()}
        rows = {name: np.flatnonzero(told & (values > 0)) for name, values in latencies.items()}
        rows = {name: found for name, found in rows.items() if len(found) >= _fewest(name)}
        ends = np.cumsum([len(found) for found in rows.values()]).tolist()
        self.parts = {name: slice(end - len(rows[name]), end) for name, end in zip(rows, ends, strict=True)}
        self.row: Ints = np.concatenate(list(rows.values()))
        self.logged: Floats = np.log(np.concatenate([latencies[name][found] for name, found in rows.items()]))
        self.instance = self.choices[self.row]

    def __call__(self, engines: list[EngineModel]) -> Floats:
        """Replay on these engines; return the logs of the latencies."""
        self.evaluations += 1
        if self._progress:
            self._progress(self.evaluations)
        outcome = self.outcome(engines)
        found = {s.TTFT_MS: outcome.ttft_ms, s.TPOT_MS: outcome.tpot_ms}
        if s.PREFILL_MS in self.parts:
            overhead = np.array([engine.request_overhead_ms + engine.response_overhead_ms for engine in engines])
            found[s.PREFILL_MS] = outcome.ttft_ms - outcome.queue_ms - overhead[self.choices]
        ms = np.concatenate([found[name][self.row[part]] for name, part in self.parts.items()])
        return np.where(np.isfinite(ms), np.log(np.maximum(ms, _FLOOR_MS)), self.logged + _NEVER)

    def outcome(self, engines: list[EngineModel], record: bool = False) -> Outcome:
        """Replay on these engines without noise."""
        quiet = [replace(engine, noise_ratio=0.0) for engine in engines]
        return replace(self.cluster, engines=quiet).replay(forced=self.choices, record=record)

    def weights(self, of_requests: Floats | None = None) -> Floats:
        """Return what each latency counts, given what each request of the stretch does."""
        return np.ones(len(self.row)) if of_requests is None else of_requests[self.row]

    def loss(self, replayed: Floats, weight: Floats) -> float:
        """Return the distance of replayed and logged latencies, summed over their kinds."""
        return sum(distance(replayed[part], self.logged[part], weight[part]) for part in self.parts.values())


def _latencies(log: RequestLog, workload: Workload) -> dict[str, Floats]:
    """Return what the log tells of each kind; a request of one token has no time between tokens."""
    told = {s.TTFT_MS: log.ttft_ms, s.TPOT_MS: np.where(workload.output_tokens > 1, tpot_ms_of(log), np.nan)}
    if s.PREFILL_MS in log.phases:
        told[s.PREFILL_MS] = log.phases[s.PREFILL_MS]
    return told


def _fewest(latency: str) -> int:
    return _FEWEST_PREFILLS if latency == s.PREFILL_MS else 1
