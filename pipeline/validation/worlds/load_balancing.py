"""Leave one policy out in CausalSim's load-balancing world: what the other policies' logs foretell of it.

A randomised trial: each trajectory of the jobs is routed by one of eight policies. From the logs of seven, the eighth
is foretold for the same jobs, and compared with what it does to them (its chance is that of the truth, job by job).
Engines are calibrated twice a trial: to spare time, a policy is foretold by the fit that it and three others had no
part in.

CausalSim cannot see sizes of jobs and finds them as what is alike under all policies; here, as in the log of a router,
sizes are seen, and 'rank-one' shows what a fit without them does. Its authors report errors 53 % and 61 % below those
of an expert's simulator and of a supervised one. A supervised one is trained to give the time of a job from that same
time and its server, so it gives it back, wherever the job goes: that is 'trace replay'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from lodestar.data.errors import ConfigError, DataError
from lodestar.models.engine import EngineModel
from lodestar.pipeline.estimation.estimate import estimate
from lodestar.pipeline.estimation.estimators import estimators
from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.loggers import balanced
from lodestar.pipeline.estimation.one_step import ESTIMAND, OneStepInput
from lodestar.pipeline.validation.worlds.job_invariance import invariance
from lodestar.pipeline.validation.worlds.job_replay import calibrated_servers, replayed
from lodestar.pipeline.validation.worlds.job_servers import (
    POLICIES,
    SERVERS,
    TRAJECTORY_JOBS,
    Jobs,
    Run,
    draw_jobs,
    probabilities,
    run,
)

__all__ = ["Trial", "draw_trial", "load_balancing_scoreboard", "one_step_rows", "summary_of"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Progress = Callable[[str, int, int], None]
Fit = Callable[[Jobs, Run], list[EngineModel]]

CLOSED_LOOP: Final = "closed-loop, replayed"
_FOLDS: Final = 5
_NEIGHBOURS: Final = 20


class Trial(NamedTuple):
    """What was logged.

    Attributes:
        jobs: that came.
        logger: number in `POLICIES` of the policy that decided, shape (n,).
        log: what came of it.
    """

    jobs: Jobs
    logger: Ints
    log: Run

    def only(self, kept: NDArray[np.bool_]) -> Trial:
        """Return the jobs for which `kept` is true, as they were logged."""
        return Trial(self.jobs.only(kept), self.logger[kept], self.log.only(kept))


def draw_trial(jobs: int, seed: int) -> Trial:
    """Draw jobs, give each policy as many trajectories as the others, and log what comes of it."""
    drawn = draw_jobs(jobs, seed)
    of_trajectory = np.arange(int(drawn.trajectory[-1]) + 1) % len(POLICIES)
    if len(of_trajectory) < len(POLICIES):
        raise ConfigError(
            f"{jobs} jobs make {len(of_trajectory)} trajectories; expected one for each of {len(POLICIES)} policies. "
            f"Ask for {len(POLICIES) * TRAJECTORY_JOBS} jobs or more"
        )
    logger = np.random.default_rng([seed, 1]).permutation(of_trajectory)[drawn.trajectory]
    names = list(POLICIES)
    return Trial(drawn, logger, run(drawn, [names[k] for k in logger.tolist()], drawn.processing_ms))


def load_balancing_scoreboard(
    jobs: int = 16_000,
    seeds: int = 2,
    seed: int = 0,
    left_out: Sequence[str] = tuple(POLICIES),
    fit: Fit = calibrated_servers,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Foretell each policy from the logs of the others, by every method.

    Args:
        jobs: of a trial, 4,000 or more: a trajectory of 500 for each policy.
        seeds: trials, each with servers and jobs of its own.
        seed: of the first.
        left_out: the policies that are foretold.
        fit: what makes engines of the servers' logs.
        progress: told 'load balancing', how many are done, of how many.

    Returns:
        'rows' (a trial, a policy and a method each; errors are foretold / true − 1, 'mape' is the mean over jobs of
        |foretold / true − 1|), 'invariance' (whether sizes and processing times are alike under all loggers) and
        'summary' (of each method). One-step rows have an error against the one-step truth as well: that is what they
        estimate, and 'error' is how wrong they are as a policy's performance.
    """
    rows: list[dict[str, Any]] = []
    alike: list[dict[str, Any]] = []
    for k in range(seeds):
        trial = draw_trial(jobs, seed + k)
        fitted: dict[int, list[EngineModel]] = {}
        for done, policy in enumerate(left_out, 1):
            number = list(POLICIES).index(policy)
            known, half = trial.only(trial.logger != number), number % 2
            if half not in fitted:
                others = trial.only(trial.logger % 2 != half)
                fitted[half] = fit(others.jobs, others.log)
            servers = fitted[half]
            rows += [{"seed": seed + k, "policy": policy, **row} for row in _foretold(known, policy, servers)]
            tested = invariance(known.log.processing_ms, known.log.server, known.logger, known.jobs.trajectory, servers)
            alike += [{"seed": seed + k, "left_out": policy, **row} for row in tested]
            if progress:
                progress("load balancing", k * len(left_out) + done, seeds * len(left_out))
    return {"jobs": jobs, "seeds": seeds, "rows": rows, "invariance": alike, "summary": summary_of(rows)}


def _foretold(known: Trial, policy: str, servers: list[EngineModel]) -> Iterator[dict[str, Any]]:
    jobs, log, everywhere = known.jobs, known.log, [policy] * len(known.jobs)
    truth = run(jobs, everywhere, jobs.processing_ms).latency_ms
    carried = np.repeat(log.processing_ms[:, None], SERVERS, axis=1)
    slowness = _slowness_without_sizes(log)
    unseen = carried * slowness / slowness[log.server][:, None]
    for method, latency_ms in (
        ("calibrated replay", replayed(jobs, policy, servers)),
        ("rank-one", run(jobs, everywhere, unseen).latency_ms),
        ("trace replay", run(jobs, everywhere, carried).latency_ms),
        ("as logged", log.latency_ms),
    ):
        yield {
            "method": method,
            "estimand": CLOSED_LOOP,
            **_errors(float(latency_ms.mean()), float(truth.mean())),
            "mape": float(np.mean(np.abs(latency_ms / truth - 1))),
        }
    yield from one_step_rows(known, policy, float(truth.mean()))


def _slowness_without_sizes(log: Run) -> Floats:
    """Fit log time = server + neighbourhood by least squares: who decides on a job does not know its size.

    Sizes are alike among jobs that follow each other, so that a server's own part is what is left.
    """
    block = np.arange(len(log.server)) // _NEIGHBOURS
    count = np.bincount(block)[:, None]
    both = np.column_stack([np.eye(SERVERS)[log.server], np.log(log.processing_ms)])
    means = np.add.reduceat(both, np.arange(0, len(block), _NEIGHBOURS)) / count
    within = both - means[block]
    return np.asarray(np.exp(np.linalg.lstsq(within[:, :SERVERS], within[:, SERVERS])[0]))


def one_step_rows(known: Trial, policy: str, truth_ms: float) -> list[dict[str, Any]]:
    """Estimate one step with balanced weights, beside the one-step truth, which the states of the log tell exactly."""
    jobs, log = known.jobs, known.log
    n = len(jobs)
    target = _probabilities(known, policy)
    loggers, logger = np.unique(known.logger, return_inverse=True)
    of_loggers = np.stack([_probabilities(known, list(POLICIES)[k]) for k in loggers.tolist()])
    own = of_loggers[logger, np.arange(n), log.server]
    logged = LoggedDecisions.of_padded(log.latency_ms, np.ones((n, SERVERS), dtype=np.bool_), log.server, own)
    features = _features(known)
    inputs = balanced(
        OneStepInput(
            replace(logged, logger=logger),
            target.ravel(),
            _cross_fitted(features, log),
            features.reshape(n * SERVERS, -1),
        ),
        of_loggers[:, np.arange(n), log.server],
    )
    one_step_ms = float((target * (log.work_ms + jobs.processing_ms)).sum(axis=1).mean())
    rows: list[dict[str, Any]] = []
    for method in estimators():
        row: dict[str, Any] = {"method": method, "estimand": ESTIMAND}
        try:
            found = estimate(inputs, policy, method)
        except DataError as error:
            rows.append({**row, "refused": str(error)})
            continue
        low, high = found.ci95_ms
        rows.append(
            {
                **row,
                **_errors(found.value_ms, truth_ms),
                "ci95_ms": [low, high],
                "one_step_truth_ms": one_step_ms,
                "one_step_error": found.value_ms / one_step_ms - 1,
                "covered": bool(low <= one_step_ms <= high),
            }
        )
    return rows


def _probabilities(known: Trial, policy: str) -> Floats:
    return probabilities(policy, known.log.queue, known.jobs.slowness, known.log.tracked)


def _features(known: Trial) -> Floats:
    """Return 1, size and queue of every candidate, in columns of its server, shape (n, SERVERS, 3 · SERVERS)."""
    n = len(known.jobs)
    size = np.broadcast_to(known.jobs.size[:, None].astype(np.float64), (n, SERVERS))
    seen = np.stack([np.ones((n, SERVERS)), size, known.log.queue], axis=2)
    return np.asarray((np.eye(SERVERS)[None, :, :, None] * seen[:, :, None, :]).reshape(n, SERVERS, -1))


def _cross_fitted(features: Floats, log: Run) -> Floats:
    """Predict every candidate's latency by least squares on the other blocks of time, shape (n · SERVERS,)."""
    n = len(log.server)
    fold, chosen = np.arange(n) * _FOLDS // n, features[np.arange(n), log.server]
    found = np.empty((n, SERVERS))
    for k in range(_FOLDS):
        there = fold == k
        fitted = np.linalg.lstsq(chosen[~there], log.latency_ms[~there])[0]
        found[there] = features[there] @ fitted
    return found.ravel()


def _errors(value_ms: float, truth_ms: float) -> dict[str, float]:
    return {"value_ms": value_ms, "truth_ms": truth_ms, "error": value_ms / truth_ms - 1}


def summary_of(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return of every method the mean and the largest |error|, the mean MAPE, and Kendall's τ over policies.

    τ is the mean over trials; None with fewer than two policies.

    >>> ranks = [{"seed": 0, "method": "m", "value_ms": v, "truth_ms": t, "error": v / t - 1}
    ...          for v, t in ((1.0, 2.0), (3.0, 4.0), (9.0, 6.0))]
    >>> found = summary_of(ranks)[0]
    >>> found["kendall_tau"], round(found["mean_error"], 3), found["mape"]
    (1.0, 0.417, None)
    """
    summary = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method and "error" in row]
        if not own:
            summary.append({"method": method, "refused": next(r["refused"] for r in rows if r["method"] == method)})
            continue
        off = np.abs([row["error"] for row in own])
        steps = [abs(row["one_step_error"]) for row in own if "one_step_error" in row]
        summary.append(
            {
                "method": method,
                "mean_error": float(off.mean()),
                "largest_error": float(off.max()),
                "mape": float(np.mean([row["mape"] for row in own])) if "mape" in own[0] else None,
                "kendall_tau": _tau(own),
                "one_step_mean_error": float(np.mean(steps)) if steps else None,
                "one_step_coverage": float(np.mean([row["covered"] for row in own])) if steps else None,
            }
        )
    return summary


def _tau(rows: Sequence[dict[str, Any]]) -> float | None:
    of_trials = []
    for seed in dict.fromkeys(row["seed"] for row in rows):
        trial = [row for row in rows if row["seed"] == seed]
        if len(trial) < 2:
            return None
        found = kendalltau([row["value_ms"] for row in trial], [row["truth_ms"] for row in trial])
        of_trials.append(float(found.statistic))
    return float(np.mean(of_trials)) if of_trials else None
