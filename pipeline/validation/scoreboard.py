"""The queueing world's scoreboard: every estimator and the replay beside what is true of every policy.

Two truths stand beside each other: the one-step truth, which one-step estimators claim, and the closed-loop truth,
which they do not: how well they tell that one is shown, so that nobody takes the one for the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from lodestar.data.errors import ConfigError
from lodestar.pipeline.replay.parallel import mapper
from lodestar.pipeline.validation.scoreboard_derivative import derivatives
from lodestar.pipeline.validation.scoreboard_one_step import decisions_of, one_step_of
from lodestar.pipeline.validation.scoreboard_replay import calibrated_cluster, replayed
from lodestar.pipeline.validation.scoreboard_summary import summary_of
from lodestar.pipeline.validation.worlds.queueing import World, traffic_of
from lodestar.pipeline.validation.worlds.queueing_kernel import POLICIES
from lodestar.pipeline.validation.worlds.queueing_log import as_log
from lodestar.pipeline.validation.worlds.queueing_policies import policies_of
from lodestar.pipeline.validation.worlds.queueing_truth import ClosedLoop, closed_loop

__all__ = ["Scoreboard", "queueing_scoreboard"]

_FEWEST_REQUESTS: Final = 2_000
_FEWEST_SEEDS: Final = 2

#: Told a stage, and how much of how much of it is done.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Scoreboard:
    """One row a policy, and what all of them come to.

    Attributes:
        rows: truths, estimates and flags of each policy, ready for JSON; times in ms.
        summary: Kendall's τ of each method, the worst errors, and each target with what was measured.
        notes: of the calibration.
        requests: of the log.
        seeds: of every run in closed loop, true or replayed.
    """

    rows: list[dict[str, Any]]
    summary: dict[str, Any]
    notes: list[str]
    requests: int
    seeds: int

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        return {
            "world": "queueing",
            "requests": self.requests,
            "seeds": self.seeds,
            "rows": self.rows,
            "summary": self.summary,
            "notes": self.notes,
        }


def queueing_scoreboard(
    requests: int = 100_000, seeds: int = 20, seed: int = 0, progress: Progress | None = None
) -> Scoreboard:
    """Log the world once, and score whatever can be told from the log against the world itself.

    Args:
        requests: of the log, and of every run.
        seeds: runs of every policy.
        seed: of the traffic and of the log.
        progress: told what goes on.

    Raises:
        ConfigError: too few requests or seeds.
    """
    if requests < _FEWEST_REQUESTS or seeds < _FEWEST_SEEDS:
        raise ConfigError(
            f"{requests} requests and {seeds} seeds; expected {_FEWEST_REQUESTS} or more, and {_FEWEST_SEEDS} or more"
        )
    say = progress or _silent
    world = World()
    traffic = traffic_of(world, requests, seed)
    run = world.run(traffic, seed=seed, keep=True)
    decisions = decisions_of(world, traffic, run)
    # The log is one run of the world, and judged by others.
    judging = range(seed + 1, seed + 1 + seeds)
    fit = calibrated_cluster(world, as_log(world, traffic, run), seed, lambda done: say("calibrate", done, done))
    twins, simulator = policies_of(world), world.misspecified()
    rows: list[dict[str, Any]] = []
    with mapper() as cores:
        say("derivatives", 0, 1)
        slopes = derivatives(world, requests, seed, max(2, seeds // 2), cores)
        say("derivatives", 1, 1)
        for done, policy in enumerate(POLICIES):
            say("policies", done, len(POLICIES))
            truth = closed_loop(world, traffic, policy, judging, cores)
            simulated = closed_loop(simulator, traffic, policy, judging, cores)
            row = _truth_row(policy, truth) | one_step_of(decisions, policy)
            row["replayed"] = _with_errors(replayed(fit.cluster, twins[policy], judging, cores), truth)
            row["misspecified"] = _with_errors(
                {"mean_ms": simulated.mean_ms, "median_ms": simulated.median_ms, "p99_ms": simulated.p99_ms}, truth
            )
            row["derivative"] = slopes.get(policy)  # none towards the logging policy itself
            rows.append(row)
        say("policies", len(POLICIES), len(POLICIES))
    _correct(rows, float(decisions.log.cost.mean()))
    return Scoreboard(rows, summary_of(rows), fit.notes, requests, seeds)


def _truth_row(policy: str, truth: ClosedLoop) -> dict[str, Any]:
    return {
        "policy": policy,
        "truth_mean_ms": truth.mean_ms,
        "truth_se_ms": truth.se_ms,
        "truth_median_ms": truth.median_ms,
        "truth_median_se_ms": truth.median_se_ms,
        "truth_p99_ms": truth.p99_ms,
        "truth_spread_over_seeds": float(truth.means_ms.std(ddof=1) / truth.mean_ms),
        "truth_unstable": truth.unstable,
        "truth_path_dependent": truth.path_dependent,
    }


def _with_errors(found: dict[str, Any], truth: ClosedLoop) -> dict[str, Any]:
    errors = {
        "relative_error": found["mean_ms"] / truth.mean_ms - 1,
        "p99_relative_error": found["p99_ms"] / truth.p99_ms - 1,
    }
    return found | errors


def _correct(rows: list[dict[str, Any]], logged_ms: float) -> None:
    """Put log-ratio-corrected values beside simulated ones: V_sim(π) · V_log(π_b) / V_sim(π_b)."""
    for method in ("replayed", "misspecified"):
        factor = logged_ms / rows[0][method]["mean_ms"]
        for row in rows:
            corrected = row[method]["mean_ms"] * factor
            row[method]["corrected_ms"] = corrected
            row[method]["corrected_relative_error"] = corrected / row["truth_mean_ms"] - 1


def _silent(stage: str, done: int, total: int) -> None:
    """Tell nobody."""
