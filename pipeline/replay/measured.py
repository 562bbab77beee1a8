"""Predictions beside what other arms of the same traffic measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from lodestar.data.errors import DataError
from lodestar.data.log import RequestLog
from lodestar.pipeline.replay.arm_order import arm_order
from lodestar.pipeline.replay.calibration.forced import known_choices
from lodestar.pipeline.replay.cluster import Cluster, Outcome
from lodestar.pipeline.replay.gates import LIMITS
from lodestar.pipeline.replay.measured_arm import MeasuredArm, measured_arm, with_its_hits
from lodestar.pipeline.replay.parallel import SERIAL, Mapper
from lodestar.pipeline.replay.window import WARMUP_RATIO, window_of

__all__ = ["compare_measured", "one_run"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Rows = NDArray[np.bool_]

#: Less than this in common is other traffic.
FEWEST_COMMON: Final = 0.5
_STATISTICS: Final[dict[str, Callable[[Floats], float]]] = {
    "mean": lambda values: float(np.mean(values)),
    "p50": lambda values: float(np.quantile(values, 0.5)),
    "p90": lambda values: float(np.quantile(values, 0.9)),
    "p99": lambda values: float(np.quantile(values, 0.99)),
}


def compare_measured(
    log: RequestLog,
    others: Sequence[RequestLog],
    cluster: Cluster,
    outcomes: Mapping[str, list[Outcome]],
    seeds: Sequence[int],
    one_step: Sequence[Mapping[str, Any]] = (),
    warmup_ratio: float = WARMUP_RATIO,
    mapper: Mapper = SERIAL,
    grouped_by: Sequence[RequestLog] = (),
) -> dict[str, Any]:
    """Compare every replayed policy, and each other arm's own choices replayed, with what that arm measured.

    Both sides are the requests, joined by id and prompt tokens, whose TTFT the other arm measured, without the warm-up.
    Only the policy that ran in the other arm should agree; the log does not name it, so all are shown. Errors are
    predicted / measured - 1. Where prefix groups are inferred, an arm's own choices are replayed once more with the
    groups that its hits tell too (`with_its_hits`): 'error_mean_hits_known' is the error that remains, and
    'groups_matter' says whether it differs from 'error_mean' by more than is tolerated of an arm's mean.

    Args:
        log: what the cluster was fitted to.
        others: the measured arms.
        cluster: in the rows of `log`.
        outcomes: policy → its runs, one a seed.
        seeds: of the runs.
        one_step: rows of `one_step`, of which the SNIPW estimate of each policy is set beside its prediction.
        warmup_ratio: share of the requests, from the first on, that is left out.
        mapper: what runs the replays.
        grouped_by: logs whose hits told the prefix groups of the cluster's workload, beside `log`.

    Returns:
        'measured', one row an arm and policy, and 'measured_order', what is said of the order of arms.
    """
    counted = np.zeros(len(log), dtype=np.bool_)
    counted[window_of(cluster.workload, warmup_ratio).rows] = True
    snipw = {row["policy"]: row["value_ms"] for row in one_step if row["estimator"] == "snipw"}

    def replayed(choices: Ints, there: Cluster = cluster) -> list[Outcome]:
        return list(mapper.map(lambda seed: there.replay(forced=choices, seed=seed), seeds))

    rows: list[dict[str, Any]] = []
    means = {log.dataset: (log.ttft_ms, replayed(known_choices(log)))} if len(others) and _is_own(log, cluster) else {}
    for other in others:
        arm = measured_arm(log, other, len(cluster.engines))
        known = _common(log, arm) & counted
        runs = dict(outcomes)
        if arm.choices is not None:
            own = runs[f"choices of {arm.dataset}"] = replayed(arm.choices)
            means[arm.dataset] = (arm.ttft_ms, own)
        rows += [_row(name, arm, found, known, log.prompt_tokens, snipw.get(name)) for name, found in runs.items()]
        if arm.choices is not None and (told := with_its_hits(cluster, log, other, grouped_by)) is not None:
            rows[-1] |= _hits_known(rows[-1], replayed(arm.choices, told), known)
    order = arm_order({name: (truth, [run.ttft_ms for run in runs]) for name, (truth, runs) in means.items()}, counted)
    return {"measured": rows, "measured_order": order}


def _is_own(log: RequestLog, cluster: Cluster) -> bool:
    """Say whether the log is an arm of this very cluster, to be compared as the others are."""
    return len(log.instances) == len(cluster.engines) and bool((log.chosen >= 0).any() and (log.ttft_ms > 0).any())


def _common(log: RequestLog, arm: MeasuredArm) -> Rows:
    known: Rows = ~np.isnan(arm.ttft_ms)
    if known.mean() < FEWEST_COMMON:
        raise DataError(
            f"--measured {arm.dataset}: {known.sum()} of the {len(log)} requests of {log.dataset} have a TTFT in it; "
            f"expected at least {FEWEST_COMMON:.0%}, joined by request id and prompt tokens. Name a log of the same "
            "traffic"
        )
    return known


def _row(
    policy: str, arm: MeasuredArm, runs: Sequence[Outcome], known: Rows, prompt_tokens: Ints, snipw_ms: float | None
) -> dict[str, Any]:
    measured = {name: of(arm.ttft_ms[known]) for name, of in _STATISTICS.items()}
    # What the replay left without a first token has no latency to compare; it is counted below.
    replayed = [run.ttft_ms[known & np.isfinite(run.ttft_ms)] for run in runs]
    pooled, answered = np.concatenate(replayed), all(map(len, replayed))
    predicted = {name: of(pooled) if len(pooled) else None for name, of in _STATISTICS.items()}
    intervals = {name: one_run([of(run) for run in replayed]) if answered else None for name, of in _STATISTICS.items()}
    told = known & np.isfinite(arm.hit_ratio)
    return {
        "policy": policy,
        "measured_dataset": arm.dataset,
        "requests": int(known.sum()),
        "ttft_ms": measured,
        "predicted_ttft_ms": predicted,
        "predicted_one_run95_ms": intervals,
        **{f"error_{name}": _error(predicted[name], measured[name]) for name in _STATISTICS},
        "router_hit_ratio": _hit_ratio([arm.hit_ratio * prompt_tokens], prompt_tokens, told),
        "predicted_router_hit_ratio": _hit_ratio([run.router_hit_tokens for run in runs], prompt_tokens, told),
        "predicted_hit_ratio": _hit_ratio([run.cached_tokens for run in runs], prompt_tokens, known),
        "unanswered_ratio": 1 - len(pooled) / (len(runs) * known.sum()),
        "one_step_snipw_ms": snipw_ms,
        "one_step_snipw_error": _error(snipw_ms, measured["mean"]),
    }


def _hits_known(row: Mapping[str, Any], runs: Sequence[Outcome], known: Rows) -> dict[str, Any]:
    """Return what the same choices give with the groups that the arm's hits tell, and whether that is another error."""
    ttft_ms = np.concatenate([run.ttft_ms[known] for run in runs])
    predicted = float(np.nanmean(ttft_ms)) if np.isfinite(ttft_ms).any() else None
    error, without = _error(predicted, row["ttft_ms"]["mean"]), row["error_mean"]
    comparable = error is not None and without is not None
    return {
        "predicted_mean_hits_known_ms": predicted,
        "error_mean_hits_known": error,
        "groups_matter": bool(comparable and abs(error - without) > LIMITS["arm_mean_error"][0]),
    }


def one_run(values: Sequence[float]) -> list[float] | None:
    """Return the 95 % interval of one further run, as the real one was, from those of several seeds.

    Formula: mean ± t · standard deviation · √(1 + 1 / seeds); it takes runs to be normal, and knows nothing of how
    wrong the engine is.

    >>> [round(bound, 2) for bound in one_run([1.0, 2.0, 3.0])]
    [-2.97, 6.97]
    """
    n = len(values)
    if n < 2:
        return None
    half = float(stdtrit(n - 1, 0.975)) * float(np.std(values, ddof=1)) * math.sqrt(1 + 1 / n)
    return [float(np.mean(values)) - half, float(np.mean(values)) + half]


def _error(predicted: float | None, measured: float) -> float | None:
    return None if predicted is None else predicted / measured - 1


def _hit_ratio(hit_tokens: Sequence[NDArray[Any]], prompt_tokens: Ints, rows: Rows) -> float | None:
    """Return the share of prompt tokens that were hits, averaged over runs; None where no row tells."""
    total = prompt_tokens[rows].sum()
    return float(np.mean([hits[rows].sum() for hits in hit_tokens]) / total) if total else None
