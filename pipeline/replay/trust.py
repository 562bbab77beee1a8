"""Trust gates: how well the simulated cluster gives back what the real one measured, before it is asked "what if"."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp, spearmanr, wasserstein_distance

from lodestar.data.log import RequestLog
from lodestar.data.reconstruction.reconstruct import tpot_ms_of
from lodestar.pipeline.replay.calibrate import TRAINING_SHARE, known_choices
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.policies.contract import Policy

__all__ = ["Gate", "Trust", "judge", "unjudged"]

Floats = NDArray[np.float64]

#: Gate → largest value that passes. What an engine model fitted to one real log reaches on later traffic, and
#: what separates the policies people choose between: 10 % in the mean, 20 % in the tail.
LIMITS: Final = {
    "forced_ttft_ks": 0.10,
    "forced_ttft_wasserstein_over_mean": 0.10,
    "forced_ttft_mean_error": 0.10,
    "forced_ttft_p50_error": 0.10,
    "forced_ttft_p99_error": 0.20,
    "forced_tpot_mean_error": 0.10,
    "forced_ttft_rank_correlation": 0.80,
    "free_run_ttft_mean_error": 0.10,
}
#: Replays of the logging policy, always as many: the verdict must not depend on how often the others are replayed.
FREE_RUNS: Final = 10
#: Fewer measurements than this judge nothing.
FEWEST_HELD_OUT: Final = 20


@dataclass(frozen=True, slots=True)
class Gate:
    """One comparison of replayed with logged outcomes.

    Attributes:
        name: what is compared.
        value: errors are relative and signed: replayed / logged - 1; None where it can't be computed, which fails.
        limit: the largest absolute value that passes; for a correlation, the smallest value.
        passed: whether it passes.
    """

    name: str
    value: float | None
    limit: float
    passed: bool


@dataclass(frozen=True, slots=True)
class Trust:
    """The verdict on closed-loop numbers: 'trusted', 'untrusted' or 'not judged', with its reasons."""

    verdict: str
    reasons: list[str]
    gates: list[Gate]

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict ready for JSON."""
        return asdict(self)


def unjudged(reason: str) -> Trust:
    """Return the verdict where nothing was measured to judge by."""
    return Trust("not judged", [reason], [])


def judge(log: RequestLog, cluster: Cluster, logging_policy: Policy | None) -> Trust:
    """Judge a calibrated cluster on the requests that did not fit it.

    *Forced* replay sends every request where the log sent it; *free-run* lets the logging policy, where it is known,
    decide again, and compares the mean over seeds.
    """
    held_out = np.arange(len(log)) >= TRAINING_SHARE * len(log)
    measured = held_out & (log.ttft_ms > 0)
    if measured.sum() < FEWEST_HELD_OUT:
        return unjudged(f"{measured.sum()} held-out requests have a TTFT; expected at least {FEWEST_HELD_OUT}")
    # The engine as it was fitted: noise is for the spread over seeds, and one draw of it moves a loaded cluster a lot.
    quiet = replace(cluster, engines=[replace(engine, noise_ratio=0.0) for engine in cluster.engines])
    outcome = quiet.replay(forced=known_choices(log))
    gates = _forced_gates(outcome.ttft_ms[measured], log.ttft_ms[measured])
    tpot_ms = tpot_ms_of(log)
    streamed = held_out & (tpot_ms > 0) & np.isfinite(outcome.tpot_ms)
    reasons = []
    if streamed.sum() >= FEWEST_HELD_OUT:
        gates.append(_gate("forced_tpot_mean_error", outcome.tpot_ms[streamed].mean() / tpot_ms[streamed].mean() - 1))
    elif (cluster.workload.output_tokens > 1).any():
        reasons.append("the log has neither TPOT nor E2E to judge those of the replay by")
    if logging_policy is not None:
        gates.append(_free_run_gate(log, cluster, logging_policy, measured))
    reasons += [_failure(gate) for gate in gates if not gate.passed]
    return Trust("untrusted" if reasons else "trusted", reasons, gates)


def _free_run_gate(log: RequestLog, cluster: Cluster, policy: Policy, measured: NDArray[np.bool_]) -> Gate:
    """Compare the mean over seeds; its limit is at least what luck explains.

    One real run is one draw: near saturation, the luck of the logging policy alone moves the mean a lot.
    """
    means = [cluster.replay(policy, seed=seed).ttft_ms[measured].mean() for seed in range(FREE_RUNS)]
    logged = log.ttft_ms[measured].mean()
    return _gate("free_run_ttft_mean_error", np.mean(means) / logged - 1, at_least=2 * np.std(means, ddof=1) / logged)


def _forced_gates(replayed: Floats, logged: Floats) -> list[Gate]:
    quantile = {
        name: float(np.quantile(replayed, q) / np.quantile(logged, q) - 1) for name, q in (("p50", 0.5), ("p99", 0.99))
    }
    return [
        _gate("forced_ttft_ks", float(ks_2samp(replayed, logged).statistic)),
        _gate("forced_ttft_wasserstein_over_mean", wasserstein_distance(replayed, logged) / logged.mean()),
        _gate("forced_ttft_mean_error", replayed.mean() / logged.mean() - 1),
        _gate("forced_ttft_p50_error", quantile["p50"]),
        _gate("forced_ttft_p99_error", quantile["p99"]),
        _gate("forced_ttft_rank_correlation", _rank_correlation(replayed, logged)),
    ]


def _rank_correlation(replayed: Floats, logged: Floats) -> float:
    """Return Spearman's coefficient; NaN where one side never varies."""
    if np.ptp(replayed) == 0 or np.ptp(logged) == 0:
        return float("nan")
    return float(spearmanr(replayed, logged).statistic)


def _gate(name: str, value: float, at_least: float = 0.0) -> Gate:
    limit = max(LIMITS[name], float(at_least))
    if not np.isfinite(value):
        return Gate(name, None, limit, False)
    passed = value >= limit if name.endswith("correlation") else abs(value) <= limit
    return Gate(name, float(value), limit, bool(passed))


def _failure(gate: Gate) -> str:
    value = "cannot be computed from this log" if gate.value is None else f"is {gate.value:.3f}"
    return f"{gate.name} {value}, limit {gate.limit:.3f}"
