"""Logged decisions scored by other policies: what they are told, what they say, and what cannot be scored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.jit import LateFunction
from lodestar.data.log import RequestLog
from lodestar.data.reconstruction.reconstruct import complete_snapshot, workload_of
from lodestar.data.workloads.sharing import sharing_workload
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.decisions import Scored, score_decisions
from lodestar.pipeline.replay.log_events import LogEvents
from lodestar.pipeline.replay.policy_file import load_python_policy
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.python_policy import PythonPolicy
from lodestar.pipeline.replay.record import recorded_log
from lodestar.pipeline.replay.routing.compiled import (
    DONE,
    FIRST_TOKEN,
    LEFT,
    SENT,
    Event,
    Memory,
    MemoryShape,
    Parameters,
    Prefixes,
    Request,
    notice_function,
    rule_function,
)
from lodestar.pipeline.replay.routing.contract import Fleet, Policy
from lodestar.pipeline.replay.routing.policy_state import PolicyState

Floats = NDArray[np.float64]
NAN = float("nan")
CLUSTER = Cluster.of(
    [EngineModel.preset("l40s-llama-3.1-8b")] * 3, sharing_workload(300, rate_per_s=6.0, sharing_ratio=0.5, seed=4)
)


def replayed(name: str) -> RequestLog:
    policy = make_policy(name)
    return recorded_log("made", CLUSTER, policy, CLUSTER.replay(policy, seed=2, record=True))


def scored(policy: Policy | PythonPolicy, log: RequestLog) -> Scored:
    workload = workload_of(log)
    return score_decisions(policy, log, workload, complete_snapshot(log, workload)[0], Fleet(log.instances))


@rule_function
def _rule(
    request: Request,
    snapshot: Floats,
    predicted_ms: Floats,
    candidates: NDArray[np.int64],
    prefixes: Prefixes,
    memory: Memory,
    parameters: Parameters,
    cost: Floats,
) -> None:
    for j in candidates:
        cost[j] = 0.0


@notice_function
def _note(
    event: Event, request: Request, instance: int, prefixes: Prefixes, memory: Memory, parameters: Parameters
) -> None:
    at = 1 + 8 * int(memory.numbers[0])
    memory.numbers[0] += 1.0
    memory.numbers[at] = event.kind
    memory.numbers[at + 1] = request.index
    memory.numbers[at + 2] = instance
    memory.numbers[at + 3] = request.now_s
    memory.numbers[at + 4] = event.hit_ratio if event.kind == SENT else event.queue_s
    memory.numbers[at + 5] = event.prefill_s
    memory.numbers[at + 6] = event.decode_s
    memory.numbers[at + 7] = event.output_tokens


@dataclass(frozen=True, slots=True)
class Diary(Policy):
    """Write down all that is heard."""

    name: ClassVar[str] = "diary"
    rule: ClassVar[LateFunction] = _rule
    notice: ClassVar[LateFunction] = _note
    memory: ClassVar[MemoryShape] = MemoryShape(numbers=100)


def followed(log: RequestLog) -> tuple[list[list[float]], list[Request]]:
    """Tell a diary what a log says, and return what it wrote down, and the requests as it saw them."""
    workload, state = workload_of(log), PolicyState(Diary(), Fleet(log.instances), 64)
    events, requests = LogEvents(log, workload, state), []
    seen = np.stack([log.snapshot[name] for name in schema.SNAPSHOT_FIELDS], axis=-1)
    for i in range(len(log)):
        requests.append(events.arrive(i))
        assert state.candidates == np.flatnonzero(log.candidate[i]).tolist()
        events.send(i, requests[i], seen[i])
    numbers = state.memory.numbers
    return numbers[1 : 1 + 8 * int(numbers[0])].reshape(-1, 8).tolist(), requests


def made_log(**changes: object) -> RequestLog:
    """Four requests on two instances, one a second; the second instance has gone by the last one."""
    n, m = 4, 2
    log = RequestLog(
        dataset="made",
        instances=["a", "b"],
        request_id=[f"r{i}" for i in range(n)],
        arrived_at_s=np.array([0.0, 1.0, 2.0, 3.0]),
        prompt_tokens=np.full(n, 100),
        output_tokens=np.array([11, 11, 1, 11]),
        chosen=np.array([0, 1, 0, 0]),
        propensity=np.full(n, 0.5),
        policy=None,
        candidate=np.array([[True, True]] * 3 + [[True, False]]),
        snapshot={name: np.full((n, m), 0.25) for name in schema.SNAPSHOT_FIELDS},
        probability=np.full((n, m), 0.5),
        ttft_ms=np.array([500.0, 1000.0, 250.0, 100.0]),
        tpot_ms=np.array([100.0, 10.0, NAN, 10.0]),
        e2e_ms=np.array([1500.0, NAN, 250.0, 200.0]),
        block_ids=np.zeros(0, dtype=np.int64),
        block_offsets=np.zeros(n + 1, dtype=np.int64),
        block_tokens=None,
        phases={schema.QUEUE_MS: np.array([200.0, NAN, 50.0, NAN])},
    )
    return replace(log, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["least-request", "least-uncached-tokens", "aibrix-prefix-cache", "round-robin", "least-latency"]
)
def test_a_policy_gives_the_decisions_of_its_own_replay_the_chances_they_had(name: str) -> None:
    log = replayed(name)
    found = scored(make_policy(name), log)
    assert not found.not_scored
    assert not found.notes
    same = np.isclose(found.probability, log.probability, rtol=0, atol=1e-9).all(axis=1)
    assert same.mean() > 0.99  # times that went through milliseconds may fall on the other side of an arrival
    assert (found.probability[np.arange(len(log)), log.chosen] > 0).mean() > 0.99


def test_a_ledger_is_kept_by_the_logged_choices_not_by_its_own() -> None:
    log = replayed("random")
    found = scored(make_policy("least-uncached-tokens"), log).probability
    hit, uncached = log.snapshot[schema.HIT_RATIO], np.zeros(3)
    release_s, held = log.arrived_at_s + log.ttft_ms / 1e3, np.zeros(len(log))
    for i in range(len(log)):
        for r in range(i):
            if held[r] and release_s[r] <= log.arrived_at_s[i]:
                uncached[log.chosen[r]] -= held[r]
                held[r] = 0.0
        cost = uncached + log.prompt_tokens[i] * (1 - hit[i])
        best = cost == cost.min()
        assert found[i].tolist() == (best / best.sum()).tolist(), i
        held[i] = np.floor(log.prompt_tokens[i] * (1 - hit[i, log.chosen[i]]) + 0.5)
        uncached[log.chosen[i]] += held[i]


#: Kind, request, instance, time, hit ratio or queue, prefill, decode, output tokens.
_EXPECTED = [
    (SENT, 0, 0, 0.0, 0.25, NAN, NAN, NAN),
    (FIRST_TOKEN, 0, 0, 0.5, NAN, NAN, NAN, NAN),
    (SENT, 1, 1, 1.0, 0.25, NAN, NAN, NAN),
    (DONE, 0, 0, 1.5, 0.2, 0.3, 1.0, 11),
    (FIRST_TOKEN, 1, 1, 2.0, NAN, NAN, NAN, NAN),
    (SENT, 2, 0, 2.0, 0.25, NAN, NAN, NAN),
    (DONE, 1, 1, 2.1, NAN, NAN, 0.1, 11),
    (FIRST_TOKEN, 2, 0, 2.25, NAN, NAN, NAN, NAN),
    (DONE, 2, 0, 2.25, 0.05, 0.2, 0.0, 1),
    (LEFT, -1, 1, 3.0, NAN, NAN, NAN, NAN),
    (SENT, 3, 0, 3.0, 0.25, NAN, NAN, NAN),
]


def test_what_happened_is_told_in_order_of_time_with_what_the_log_knows() -> None:
    np.testing.assert_allclose(followed(made_log())[0], _EXPECTED, atol=1e-12)


def test_a_request_without_latencies_is_over_as_it_is_sent_and_the_note_counts_it() -> None:
    log = made_log(
        ttft_ms=np.array([NAN, 500.0, 500.0, 500.0]),
        e2e_ms=np.array([NAN, NAN, NAN, NAN]),
        tpot_ms=np.array([NAN, NAN, NAN, 10.0]),
    )
    assert [row[:4] for row in followed(log)[0][:2]] == [[SENT, 0, 0, 0.0], [DONE, 0, 0, 0.0]]
    assert scored(make_policy("least-uncached-tokens"), log).notes == (
        "1 of 4 requests have no latencies: it forgets them as soon as they are sent",
        "1 of 4 requests have a TTFT alone: they count as over at their first token",
    )


def test_without_any_latency_a_ledger_is_not_scored_and_others_are() -> None:
    nothing = np.full(4, NAN)
    log = made_log(ttft_ms=nothing, e2e_ms=nothing, tpot_ms=nothing)
    ledger = scored(make_policy("least-uncached-tokens"), log)
    assert ledger.not_scored == {
        "it remembers requests until they are answered, and the log has no latencies": 4,
    }
    assert np.isnan(ledger.probability).all()
    assert scored(make_policy("round-robin"), log).not_scored == {}


def test_rows_that_cannot_be_scored_are_nan_and_counted_by_reason() -> None:
    candidate = np.array([[True, True], [True, True], [False, False], [True, True]])
    log = made_log(candidate=candidate, chosen=np.array([0, -1, 0, 0]))
    log.snapshot[schema.HIT_RATIO][3, 1] = NAN
    found = scored(make_policy("least-uncached-tokens"), log)
    assert found.not_scored == {
        "no decision is logged": 1,
        "no candidates are logged": 1,
        "the log lacks hit_ratio for some candidates": 1,
    }
    assert np.isnan(found.probability).all(axis=1).tolist() == [False, True, True, True]
    assert scored(make_policy("least-request"), log).not_scored == {
        "no decision is logged": 1,
        "no candidates are logged": 1,
    }


def test_a_decision_that_cannot_be_scored_is_remembered_nonetheless() -> None:
    log = made_log(ttft_ms=np.full(4, 1e6), e2e_ms=np.full(4, 1e6))
    log.snapshot[schema.HIT_RATIO][0, 1] = NAN  # the request went to the other one, with 75 uncached tokens
    found = scored(make_policy("least-uncached-tokens"), log).probability
    assert np.isnan(found[0]).all()
    assert found[1].tolist() == [0.0, 1.0]


def test_a_hit_ratio_that_nobody_knows_counts_as_none_in_a_ledger() -> None:
    log = made_log(ttft_ms=np.full(4, 1e6), e2e_ms=np.full(4, 1e6))
    log.snapshot[schema.HIT_RATIO][0, 0] = NAN
    found = scored(make_policy("least-uncached-tokens"), log)
    assert found.probability[1].tolist() == [0.0, 1.0]  # 100 tokens are ahead on the first
    assert found.notes == ("1 of 4 requests went where the log tells no hit ratio: it counts as 0",)


def test_requests_that_are_answered_as_they_arrive_are_not_overlooked() -> None:
    zero = np.zeros(4)
    log = made_log(arrived_at_s=zero, ttft_ms=zero, tpot_ms=zero, e2e_ms=zero, candidate=np.ones((4, 2), dtype=bool))
    heard = [tuple(row[:2]) for row in followed(log)[0]]
    assert heard == [(kind, i) for i in range(3) for kind in (SENT, FIRST_TOKEN, DONE)] + [(SENT, 3)]


def test_a_policy_that_looks_into_engines_says_so() -> None:
    found = scored(make_policy("oracle-ttft"), made_log())
    assert found.not_scored == {"it looks into the engines, which only a replay can": 4}


def test_a_policy_in_plain_python_is_scored_by_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "class Told:\n    def choose(self, request, snapshot, state, rng):\n"
        "        state['asked'] = request.now_s\n"
        "        return 0, [0.75, 0.25] if len(snapshot.candidates) > 1 else [1, 0]\n"
        "class Silent:\n    def choose(self, request, snapshot, state, rng):\n        return 0\n"
    )
    log, workload = made_log(), workload_of(made_log())
    log.snapshot[schema.INFLIGHT_REQUESTS][0, 1] = NAN  # a candidate nonetheless
    policy = load_python_policy(f"{tmp_path / 'mine.py'}:Told")
    told = score_decisions(policy, log, workload, log.snapshot, Fleet(log.instances))
    assert told.probability.tolist() == [[0.75, 0.25]] * 3 + [[1.0, 0.0]]
    assert told.notes == ("it keeps a memory of its own and is not told where the logged router sent requests",)
    silent = scored(load_python_policy(f"{tmp_path / 'mine.py'}:Silent"), log)
    assert silent.not_scored == {"its method choose returns no probabilities": 4}
    assert np.isnan(silent.probability).all()


def test_a_block_that_the_prompt_fills_partly_is_no_prefix() -> None:
    blocks = {"block_ids": np.array([0, 1, 0, 1]), "block_offsets": np.array([0, 2, 4, 4, 4]), "block_tokens": 64}
    requests = followed(made_log(**blocks))[1]  # prompts of 100 tokens
    assert [request.path_to - request.path_from for request in requests] == [1, 1, 0, 0]
