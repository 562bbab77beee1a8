"""Logged decisions scored by another policy: how likely it would have made each, on the states of the log.

The policy goes through the log in order, hears where every request went and when it was answered, and is asked before
each decision. What it remembers is what it would remember had it watched the logged router, not what its own choices
would have led to: one step, logged states.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.log import RequestLog, Workload
from lodestar.pipeline.replay.log_events import LogEvents, known_ends
from lodestar.pipeline.replay.parallel import AnyPolicy
from lodestar.pipeline.replay.python_policy import PythonPolicy
from lodestar.pipeline.replay.routing.compiled import no_notice
from lodestar.pipeline.replay.routing.contract import ENGINE, Fleet, Policy
from lodestar.pipeline.replay.routing.learning import LearningPolicy
from lodestar.pipeline.replay.routing.policy_state import PolicyState

__all__ = ["Scored", "score_decisions", "scored_decisions"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_NO_DECISION = "no decision is logged"
_NO_CANDIDATES = "no candidates are logged"
_NO_PROBABILITY = "its method choose returns no probabilities"


@dataclass(frozen=True, slots=True)
class Scored:
    """What a policy makes of the decisions of a log.

    Attributes:
        probability: that it would have given every instance, shape (n, m): 0 for what was no candidate, and rows of
            NaN where it cannot be said.
        not_scored: why not → in how many rows.
        notes: what else to know, a sentence each.
    """

    probability: Floats
    not_scored: dict[str, int]
    notes: tuple[str, ...] = ()


def scored_decisions(
    policy: AnyPolicy, log: RequestLog, workload: Workload, snapshot: Mapping[str, Floats], fleet: Fleet
) -> Floats:
    """Return the probability that a policy would have given every instance of each logged decision, shape (n, m).

    As `score_decisions`, without the reasons.
    """
    return score_decisions(policy, log, workload, snapshot, fleet).probability


def score_decisions(
    policy: AnyPolicy, log: RequestLog, workload: Workload, snapshot: Mapping[str, Floats], fleet: Fleet
) -> Scored:
    """Score every logged decision by a policy.

    Candidates are listed in the order of the log's instances. An instance that is never a candidate again has left.

    Args:
        policy: what decides.
        log: the decisions, in order of arrival.
        workload: the same requests, complete.
        snapshot: field → what was known of every instance, shape (n, m), as `complete_snapshot` returns it.
        fleet: the log's instances.
    """
    reasons = _reasons(policy, log, snapshot, fleet)
    seen = np.stack([snapshot[name] for name in schema.SNAPSHOT_FIELDS], axis=-1)
    seen[~log.candidate] = np.nan
    if isinstance(policy, PythonPolicy):
        probability, notes = _asked(policy, log, workload, seen, reasons)
    elif isinstance(policy, LearningPolicy) or all(reasons):
        probability, notes = np.full(log.candidate.shape, np.nan), ()
    else:
        probability = _followed(policy, log, workload, np.ascontiguousarray(seen, dtype=np.float64), fleet, reasons)
        notes = _notes(policy, log, workload, seen, fleet)
    return Scored(probability, dict(Counter(reason for reason in reasons if reason)), notes)


def _reasons(policy: AnyPolicy, log: RequestLog, snapshot: Mapping[str, Floats], fleet: Fleet) -> list[str]:
    """Say of every row why it cannot be scored, or nothing."""
    decided, shown = log.chosen >= 0, log.candidate.any(axis=1)
    reasons = np.where(decided, np.where(shown, "", _NO_CANDIDATES), _NO_DECISION).astype(object)
    never = _never(policy, log, fleet)
    if never:
        reasons[reasons == ""] = never
    for name in policy.fields:
        lacks = (log.candidate & np.isnan(snapshot[name])).any(axis=1) & (reasons == "")
        reasons[lacks] = f"the log lacks {name} for some candidates"
    found: list[str] = reasons.tolist()
    return found


def _never(policy: AnyPolicy, log: RequestLog, fleet: Fleet) -> str:
    """Say why no decision of this log can be scored, or nothing."""
    if isinstance(policy, PythonPolicy):
        return ""
    if isinstance(policy, LearningPolicy):
        return "it learns as it routes, which only a replay can follow"
    if policy.predictor == ENGINE:
        return "it looks into the engines, which only a replay can"
    if policy.needs_engines and fleet.engines is None:
        return f"it must know the engines: run lodestar calibrate {log.dataset} first"
    if not known_ends(log).any() and _needs_ends(policy, fleet):
        return "it remembers requests until they are answered, and the log has no latencies"
    return ""


def _needs_ends(policy: Policy, fleet: Fleet) -> bool:
    """Try out whether the end of a request changes what the policy remembers."""
    if policy.notice is no_notice:
        return False
    state = PolicyState(policy, fleet, block_tokens=16)
    request = state.request(0.0, 1000, range(8), 0)
    state.sent(request, 0, np.zeros((len(fleet.names), len(schema.SNAPSHOT_FIELDS))))
    before = [array.copy() for array in state.memory]
    state.done(request, 0, 1.0, queue_s=0.1, prefill_s=0.1, decode_s=0.8, output_tokens=50.0)
    return any(not np.array_equal(was, now) for was, now in zip(before, state.memory, strict=True))


def _followed(
    policy: Policy, log: RequestLog, workload: Workload, seen: Floats, fleet: Fleet, reasons: list[str]
) -> Floats:
    """Ask a compiled policy, and tell it what the log says became of every request."""
    out = np.full(log.candidate.shape, np.nan)
    state = PolicyState(policy, fleet, workload.block_tokens)
    events = LogEvents(log, workload, state)
    for i in np.flatnonzero(log.chosen >= 0).tolist():
        request = events.arrive(i)
        if not reasons[i]:
            out[i] = state.decide(request, seen[i])[1]
        events.send(i, request, seen[i])
    return out


def _notes(policy: Policy, log: RequestLog, workload: Workload, seen: Floats, fleet: Fleet) -> tuple[str, ...]:
    """Say what the policy could not be told."""
    notes = ["no request names a conversation"] if policy.needs_sessions and workload.session is None else []
    if policy.notice is no_notice:
        return tuple(notes)
    rows = np.flatnonzero(log.chosen >= 0)
    if _needs_ends(policy, fleet):
        lost = int((~known_ends(log)[rows]).sum())
        alone = ~np.isnan(log.ttft_ms) & np.isnan(log.e2e_ms) & np.isnan(log.tpot_ms) & (workload.output_tokens > 1)
        short = int(alone[rows].sum())
        if lost:
            notes.append(f"{lost} of {len(rows)} requests have no latencies: it forgets them as soon as they are sent")
        if short:
            notes.append(f"{short} of {len(rows)} requests have a TTFT alone: they count as over at their first token")
    if schema.HIT_RATIO in policy.fields:
        unknown = int(np.isnan(seen[rows, log.chosen[rows], schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)]).sum())
        if unknown:
            notes.append(f"{unknown} of {len(rows)} requests went where the log tells no hit ratio: it counts as 0")
    return tuple(notes)


def _asked(
    policy: PythonPolicy, log: RequestLog, workload: Workload, seen: Floats, reasons: list[str]
) -> tuple[Floats, tuple[str, ...]]:
    """Ask a policy in plain Python, which hears of nothing but the requests."""
    out = np.full(log.candidate.shape, np.nan)
    snapshot, candidate, clock_s = np.empty(seen.shape[1:]), np.zeros(seen.shape[1], dtype=np.bool_), np.zeros(1)
    policy = policy.fresh()
    policy.start(workload, snapshot, 0, clock_s, candidate)
    for i, reason in enumerate(reasons):
        if reason:
            continue
        snapshot[:], candidate[:], clock_s[0] = seen[i], log.candidate[i], workload.arrived_at_s[i]
        policy.decide(i)
        out[i] = policy.probability
        if np.isnan(out[i]).any():
            reasons[i] = _NO_PROBABILITY
    if not policy.remembers or np.isnan(out).all():
        return out, ()
    return out, ("it keeps a memory of its own and is not told where the logged router sent requests",)
