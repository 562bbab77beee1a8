"""Trust: how well the simulated cluster gives back what the real one measured, before it is asked "what if"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.log import RequestLog
from lodestar.data.reconstruction.reconstruct import tpot_ms_of
from lodestar.pipeline.replay.arm_gates import arm_comparisons
from lodestar.pipeline.replay.calibration.forced import known_choices
from lodestar.pipeline.replay.calibration.stretch import training_part
from lodestar.pipeline.replay.cluster import Cluster, Outcome
from lodestar.pipeline.replay.derivative_gate import derivative_comparisons
from lodestar.pipeline.replay.fidelity import mean_error, ttft_statistics
from lodestar.pipeline.replay.gates import RUNS, Comparison, Gate, gates_of
from lodestar.pipeline.replay.parallel import SERIAL, AnyPolicy, Mapper
from lodestar.pipeline.replay.routing.contract import Policy
from lodestar.reports.numbers import number

__all__ = ["Gate", "Trust", "judge", "unjudged"]

Floats = NDArray[np.float64]
Rows = NDArray[np.bool_]

#: Fewer measurements than this judge nothing.
FEWEST_HELD_OUT: Final = 20


@dataclass(frozen=True, slots=True)
class Trust:
    """The verdict on closed-loop numbers: 'trusted', 'untrusted' or 'not judged'.

    Attributes:
        verdict: one of the three.
        reasons: why it is not 'trusted'.
        gates: all that were tried.
        notes: what else to know of them; none of it changes the verdict.
    """

    verdict: str
    reasons: list[str]
    gates: list[Gate]
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict ready for JSON."""
        return asdict(self)


def unjudged(reason: str) -> Trust:
    """Return the verdict where nothing was measured to judge by."""
    return Trust("not judged", [reason], [])


def judge(
    log: RequestLog,
    cluster: Cluster,
    logging_policy: Policy | None,
    arms: Sequence[RequestLog] = (),
    grouped_by: Sequence[RequestLog] = (),
    mapper: Mapper = SERIAL,
    policies: Mapping[str, AnyPolicy] | None = None,
) -> Trust:
    """Judge a calibrated cluster on the requests that did not fit it, and on the other arms of the same traffic.

    *Forced* replay sends every request where the log sent it; *free-run* lets the logging policy, where it is known,
    decide again; each other *arm*'s own choices are replayed, with prefix groups that it had no part in. Where the
    logging policy is known and explores, what a little more of each policy would do is compared as well.

    Args:
        log: what was logged, in the rows of the cluster's workload.
        cluster: as many instances as the log has, fitted to its first part.
        logging_policy: the one that made the log, where it is known.
        arms: logs of the same requests under other routers, with choices and TTFT.
        grouped_by: logs whose hits told the prefix groups of the cluster's workload.
        mapper: what runs the replays.
        policies: that are to be replayed, by name.
    """
    # A request whose choice is not logged is replayed where it may not have been.
    held_out = ~training_part(log) & ((log.chosen >= 0) | (len(log.instances) <= 1))
    measured = held_out & (log.ttft_ms > 0)
    if measured.sum() < FEWEST_HELD_OUT:
        return unjudged(
            f"{measured.sum()} held-out requests have a known instance and a TTFT; expected at least {FEWEST_HELD_OUT}"
        )
    tpot_ms = tpot_ms_of(log)
    streamed = held_out & (tpot_ms > 0) & (cluster.workload.output_tokens > 1)
    compared, reasons = _forced(log, cluster, measured, streamed, mapper), []
    if streamed.sum() < FEWEST_HELD_OUT and (cluster.workload.output_tokens > 1).any():
        reasons.append("the log has neither TPOT nor E2E to judge those of the replay by")
    if logging_policy is not None:
        compared.append(_free_run(log, cluster, logging_policy, measured, mapper))
    of_arms, notes = arm_comparisons(log, cluster, arms, grouped_by, mapper)
    if policies and logging_policy is not None:
        of_policies, more = derivative_comparisons(log, cluster, logging_policy, policies, mapper)
        compared, notes = [*compared, *of_policies], [*notes, *more]
    elif policies:
        notes = [*notes, "no derivative is compared: the policy that made the log is not known"]
    gates = gates_of([*compared, *of_arms])
    reasons += [_failure(gate) for gate in gates if not gate.passed]
    return Trust("untrusted" if reasons else "trusted", reasons, gates, notes)


def _forced(log: RequestLog, cluster: Cluster, measured: Rows, streamed: Rows, mapper: Mapper) -> list[Comparison]:
    """Compare the replay of the logged choices with the log, and with itself under `RUNS` draws of noise.

    The replay is of the engines as they were fitted, without noise: one draw of it moves a loaded cluster a lot.
    """
    choices, tpot_ms = known_choices(log), tpot_ms_of(log)
    quiet = replace(cluster, engines=[replace(engine, noise_ratio=0.0) for engine in cluster.engines])
    outcome = quiet.replay(forced=choices)
    runs = list(mapper.map(lambda seed: cluster.replay(forced=choices, seed=seed), range(RUNS)))
    found = ttft_statistics(outcome.ttft_ms[measured], log.ttft_ms[measured])
    by_luck = [ttft_statistics(outcome.ttft_ms[measured], run.ttft_ms[measured]) for run in runs]
    compared = [Comparison(name, value, [each[name] for each in by_luck]) for name, value in found.items()]
    if streamed.sum() >= FEWEST_HELD_OUT:
        luck = [mean_error(outcome.tpot_ms[streamed], run.tpot_ms[streamed]) for run in runs]
        error = mean_error(outcome.tpot_ms[streamed], tpot_ms[streamed])
        compared.append(Comparison("forced_tpot_mean_error", error, luck))
    if unanswered := float(np.isnan(outcome.ttft_ms[measured]).mean()):
        compared.append(Comparison("forced_unanswered_ratio", unanswered))
    return compared


def _free_run(log: RequestLog, cluster: Cluster, policy: Policy, measured: Rows, mapper: Mapper) -> Comparison:
    """Compare the mean over `RUNS` runs with the log, and with each run in the place of the log.

    One real run is one draw: near saturation, the luck of the logging policy alone moves the mean a lot.
    """
    runs: list[Outcome] = list(mapper.map(lambda seed: cluster.replay(policy, seed=seed), range(RUNS)))
    means = np.array([np.nanmean(run.ttft_ms[measured]) for run in runs])
    logged = log.ttft_ms[measured].mean()
    others = (means.sum() - means) / (RUNS - 1)
    rank = 1 + int((means < logged).sum())
    return Comparison(
        "free_run_ttft_mean_error",
        float(means.mean() / logged - 1),
        (others / means - 1).tolist(),
        note=f"of the {RUNS} runs and the log, the log is number {rank} from below",
    )


def _failure(failed: Gate) -> str:
    value = "cannot be computed from this log" if failed.value is None else f"is {number(failed.value, 3)}"
    return f"{failed.name} {value}, limit {failed.limit:.3f} ({failed.why})"
