"""Fit the engine model to a dataset's own latencies, by replaying the decisions that its log holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from lodestar.data import schema
from lodestar.data.log import RequestLog, Workload
from lodestar.data.reconstruction.reconstruct import tpot_ms_of
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.cluster import Cluster

__all__ = [
    "FEWEST_REQUESTS",
    "TRAINING_SHARE",
    "Calibration",
    "calibrate",
    "can_calibrate",
    "known_choices",
    "usable_requests",
]

Floats = NDArray[np.float64]

#: The first part of the requests fits the engine; the rest judges it.
TRAINING_SHARE: Final = 0.7
#: Gives what no latency tells: the limits of a batch, and the cache where its usage is not logged.
LIMITS_FROM: Final = "l40s-llama-3.1-8b"
#: Where the search starts: an 8B model on a mid-range GPU. The scale of all but the overhead is searched first, so that
#: a much faster or slower engine is found as well.
START: Final = {
    "base_ms": 20.0,
    "prompt_token_ms": 0.15,
    "sequence_ms": 0.04,
    "context_token_ms": 2e-4,
    "attention_ms": 3e-6,
    "overhead_ms": 20.0,
}
_SCALES: Final = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4)
#: A weak prior: a coefficient that is a factor e from the scaled start costs this much loss. It decides only where the
#: log does not, such as between overhead and prompt work when arrival times are uncertain.
PRIOR: Final = 0.03
_RESTARTS: Final = 3
#: A coefficient is identified when a quarter more of it raises the loss by this share.
IDENTIFIED: Final = 0.01
_QUANTILES: Final = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
FEWEST_REQUESTS: Final = 50
_FEWEST_ALONE: Final = 20
_DEFAULT_NOISE: Final = 0.05
_INFLIGHT: Final = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted engine.

    Attributes:
        engine: the model, one for all instances.
        loss: of the fit on the training part; see `calibrate`.
        identified: whether the log says anything about each fitted coefficient.
        notes: what was taken from elsewhere.
        evaluations: replays that the search took.
    """

    engine: EngineModel
    loss: float
    identified: dict[str, bool]
    notes: list[str]
    evaluations: int

    def to_dict(self) -> dict[str, Any]:
        """Return how the fit went, ready for JSON."""
        return {
            "loss": self.loss,
            "identified": self.identified,
            "notes": self.notes,
            "evaluations": self.evaluations,
            "training_share": TRAINING_SHARE,
        }


def can_calibrate(log: RequestLog) -> bool:
    """Say whether the training part of the log has decisions with latencies to fit an engine to."""
    return usable_requests(log) >= FEWEST_REQUESTS


def usable_requests(log: RequestLog) -> int:
    """Count the requests of the training part with a decision and a TTFT."""
    return int(np.sum(_training_part(log) & (log.chosen >= 0) & (log.ttft_ms > 0)))


def _training_part(log: RequestLog) -> NDArray[np.bool_]:
    return np.arange(len(log)) < TRAINING_SHARE * len(log)


def calibrate(log: RequestLog, workload: Workload, progress: Callable[[int], None] | None = None) -> Calibration:
    """Fit step time and overhead so that replaying the logged choices gives the logged latencies.

    The loss, on the first `TRAINING_SHARE` of the requests, is the mean absolute log ratio of replayed to logged TTFT
    and TPOT, request by request, plus that of their quantiles. Both regimes of the step share their coefficients:
    latencies alone do not tell them apart. The search is Nelder-Mead on the logs of the coefficients, and weakly held.

    The rows of `log` and `workload` must be the same requests in the same order. `progress` is told the replays so far.
    """
    base = EngineModel.preset(LIMITS_FROM)
    capacity, notes = _capacity_tokens(log, base)
    engines = [replace(base, kv_capacity_tokens=capacity)] * len(log.instances)
    # Later requests change nothing for earlier ones.
    cluster = Cluster.of(engines, workload.head(int(_training_part(log).sum())))
    loss = _loss_of(log, cluster, progress)
    found, evaluations = _search(loss)
    at_best = loss(found)
    identified = {
        name: bool(loss(found + np.log(1.25) * np.eye(len(START))[k]) > at_best * (1 + IDENTIFIED))
        for k, name in enumerate(START)
    }
    engine = _engine(cluster.engines[0], found)
    noise, note = _noise_ratio(log, cluster.with_engine(engine))
    undecided = int((log.chosen < 0).sum())
    if undecided:
        notes.append(f"{undecided} requests without a logged decision were sent to the instances in turn")
    return Calibration(
        engine=replace(engine, noise_ratio=noise),
        loss=at_best,
        identified=identified,
        notes=[*notes, note],
        evaluations=evaluations,
    )


def _search(loss: Callable[[Floats], float]) -> tuple[Floats, int]:
    """Minimise loss plus prior; return the logs of the coefficients and the replays it took."""
    start = np.log(list(START.values()))
    scaled = np.array([name != "overhead_ms" for name in START])
    start = start + scaled * min(np.log(_SCALES), key=lambda scale: loss(start + scaled * scale))
    best, best_value, evaluations = start, np.inf, len(_SCALES)
    for attempt in range(_RESTARTS):
        step = 0.5 if attempt % 2 == 0 else -0.5
        found = minimize(
            lambda at: loss(at) + PRIOR * float(np.sum((at - start) ** 2)),
            best,
            method="Nelder-Mead",
            options={
                "initial_simplex": np.vstack([best, best + step * np.eye(len(best))]),
                "maxfev": 400,
                "xatol": 1e-3,
                "fatol": 1e-4,
            },
        )
        evaluations += int(found.nfev)
        improved = best_value - found.fun > 1e-3
        best, best_value = found.x, min(best_value, float(found.fun))
        if not improved:
            break
    return best, evaluations


def _engine(engine: EngineModel, log_coefficients: Floats) -> EngineModel:
    base, prompt, sequence, context, attention, overhead = (float(value) for value in np.exp(log_coefficients))
    return replace(
        engine,
        decode_base_ms=base,
        prefill_base_ms=base,
        prompt_token_ms=prompt,
        decode_sequence_ms=sequence,
        prefill_sequence_ms=sequence,
        context_token_ms=context,
        prefill_context_token_ms=context,
        attention_ms=attention,
        request_overhead_ms=overhead,
    )


def _loss_of(log: RequestLog, cluster: Cluster, progress: Callable[[int], None] | None) -> Callable[[Floats], float]:
    training = len(cluster.workload)
    logged_ttft_ms, logged_tpot_ms = log.ttft_ms[:training], tpot_ms_of(log)[:training]
    ttft = logged_ttft_ms > 0
    tpot = (logged_tpot_ms > 0) & (cluster.workload.output_tokens > 1)
    forced = known_choices(log)[:training]
    evaluations = count(1)

    def loss(log_coefficients: Floats) -> float:
        outcome = cluster.with_engine(_engine(cluster.engines[0], log_coefficients)).replay(forced=forced)
        if progress:
            progress(next(evaluations))
        return _distance(outcome.ttft_ms[ttft], logged_ttft_ms[ttft]) + _distance(
            outcome.tpot_ms[tpot], logged_tpot_ms[tpot]
        )

    return loss


def known_choices(log: RequestLog) -> NDArray[np.int64]:
    """Return the logged choices; a request whose choice is not logged goes to the instances in turn."""
    return np.where(log.chosen >= 0, log.chosen, np.arange(len(log)) % len(log.instances)).astype(np.int64)


def _distance(replayed: Floats, logged: Floats) -> float:
    """Return the mean absolute log ratio, request by request plus quantile by quantile."""
    if not len(logged):
        return 0.0
    floor = 1e-3  # a microsecond: an outcome of 0 ms has no logarithm
    replayed = np.maximum(replayed, floor)
    ratio = np.quantile(replayed, _QUANTILES) / np.quantile(logged, _QUANTILES)
    return float(np.abs(np.log(replayed / logged)).mean() + np.abs(np.log(ratio)).mean())


def _capacity_tokens(log: RequestLog, otherwise: EngineModel) -> tuple[int, list[str]]:
    """Infer the key-value capacity from logged usage: running requests × their mean tokens / usage."""
    part = _training_part(log)
    running, usage = log.snapshot[schema.RUNNING_REQUESTS][part], log.snapshot[schema.KV_USAGE_RATIO][part]
    seen = (running >= 3) & (usage > 0)
    if seen.sum() < FEWEST_REQUESTS:
        capacity, source = otherwise.kv_capacity_tokens, f"preset {LIMITS_FROM}, as the log has no usage of it"
    else:
        # A request holds its prompt and, on average over its life, half of its output.
        tokens = log.prompt_tokens[part].mean() + log.output_tokens[part].clip(0).mean() / 2
        capacity = int(running[seen].sum() * tokens / usage[seen].sum())
        source = "logged usage and running requests"
    largest = 2 * int((log.prompt_tokens + log.output_tokens.clip(0)).max())
    if capacity < largest:
        return largest, [f"key-value capacity of {largest} tokens, twice the largest request: {capacity} from {source}"]
    return capacity, [f"key-value capacity of {capacity} tokens from {source}"]


def _noise_ratio(log: RequestLog, cluster: Cluster) -> tuple[float, str]:
    """Estimate how much the prefill of requests that found their instance idle varies beyond the model."""
    training = len(cluster.workload)
    forced, rows = known_choices(log)[:training], np.arange(training)
    outcome = cluster.replay(forced=forced, record=True)
    idle = outcome.snapshots[rows, forced, _INFLIGHT] == 0
    idle &= ~(log.snapshot[schema.INFLIGHT_REQUESTS][rows, forced] > 0)
    logged_ms = log.ttft_ms[:training]
    alone = idle & (logged_ms > 0)
    if alone.sum() < _FEWEST_ALONE:
        return _DEFAULT_NOISE, f"noise of {_DEFAULT_NOISE:.0%} assumed: {alone.sum()} requests met an idle instance"
    residual = np.log(logged_ms[alone] / outcome.ttft_ms[alone])
    spread = 1.4826 * float(np.median(np.abs(residual - np.median(residual))))
    return spread, f"noise of {spread:.1%} from {alone.sum()} requests that met an idle instance"
