"""What a server keeps of decisions: reservations, what waits for its outcome, prompts sent, places of instances."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestar.data import schema as s
from lodestar.pipeline.online.reservations import Reservations
from lodestar.pipeline.online.router import OnlineRouter
from lodestar.pipeline.online.settings import OnlineSettings
from lodestar.pipeline.serve.fleet import Fleet
from lodestar.pipeline.serve.pending import Pending, Waiting
from lodestar.pipeline.serve.untold import Untold

FIELDS = len(s.SNAPSHOT_FIELDS)
COLUMN = {name: i for i, name in enumerate(s.SNAPSHOT_FIELDS)}
HELD = [COLUMN[name] for name in (s.INFLIGHT_REQUESTS, s.INFLIGHT_PREFILL_REQUESTS, s.PREFILL_TOKENS)]

events = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.integers(0, 3), st.integers(0, 5000), st.booleans()), max_size=40
)


@given(events)
def test_reservations_are_the_sum_of_what_is_held(drawn: list[Any]) -> None:
    """Against a list that is gone through each time; a request comes every 10 ms, and is held for 55."""
    held, naive = Reservations(55.0), dict[str, tuple[float, int, int]]()
    for k, (name, instance, tokens, dropped) in enumerate(drawn):
        now_s = k * 0.01
        naive.pop(name, None)
        if dropped:
            held.drop(name)
        else:
            held.add(now_s, name, instance, tokens)
            naive[name] = (now_s, instance, tokens)
        snapshot = np.zeros((4, FIELDS))
        held.into(now_s + 0.001, snapshot)
        kept = [each for each in naive.values() if now_s + 0.001 - each[0] < 0.055]
        for j in range(4):
            tokens_there = [tokens for _, instance, tokens in kept if instance == j]
            assert snapshot[j, HELD].tolist() == [len(tokens_there), len(tokens_there), sum(tokens_there)]
    assert snapshot[:, [i for i in range(FIELDS) if i not in HELD]].sum() == 0 if drawn else True


def test_nothing_is_held_for_no_time_and_what_is_not_known_stays_so() -> None:
    held, snapshot = Reservations(0.0), np.zeros((1, FIELDS))
    held.add(0.0, "a", 0, 100.0)
    held.into(0.0, snapshot)
    assert snapshot.sum() == 0
    held = Reservations(1000.0)
    held.add(0.0, "a", 0, 100.0)
    snapshot[0, HELD[1]] = np.nan
    held.into(0.1, snapshot)
    assert np.isnan(snapshot[0, HELD[1]])
    assert snapshot[0, [HELD[0], HELD[2]]].tolist() == [1.0, 100.0]


def pending(name: str, at_s: float = 0.0) -> Pending:
    return Pending(
        name,
        None,
        at_s,
        10,
        ("a",),
        ("",),
        np.zeros((1, FIELDS)),
        np.zeros((1, FIELDS)),
        None,
        None,
        None,
        0,
        None,
        None,
        None,
    )


def test_what_waits_too_long_or_is_too_much_is_given_away_oldest_first() -> None:
    waiting = Waiting(keep_s=10.0, most=3)
    for k in range(5):
        assert waiting.add(pending(f"r{k}", float(k))) is None
    assert [each.request_id for each in waiting.overdue(4.0)] == ["r0", "r1"]
    assert [each.request_id for each in waiting.overdue(12.5)] == ["r2"]
    again = waiting.add(pending("r3", 13.0))
    assert again is not None
    assert again.decided_at_s == 3.0
    assert [each.request_id for each in waiting.overdue(15.0)] == ["r4"]
    assert waiting.take("r4") is None
    assert waiting.take("r3") is not None
    assert len(waiting) == 0


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=12), st.data())
def test_prompts_before_their_first_token_follow_from_their_tokens(prompts: list[int], data: st.DataObject) -> None:
    first_without = data.draw(st.integers(0, len(prompts)))
    books, snapshot = Untold(), np.zeros((1, FIELDS))
    for prompt_tokens in prompts:
        books.sent("a", prompt_tokens)
    waiting = prompts[first_without:]
    snapshot[0, COLUMN[s.PREFILL_TOKENS]] = sum(waiting)
    snapshot[0, COLUMN[s.INFLIGHT_REQUESTS]] = len(waiting) + 2
    books.fill(["a"], snapshot)
    prefill, decode = snapshot[0, [COLUMN[s.INFLIGHT_PREFILL_REQUESTS], COLUMN[s.INFLIGHT_DECODE_REQUESTS]]]
    assert (prefill, decode) == (len(waiting), 2)


def test_an_instance_keeps_its_place_and_may_get_another_kind() -> None:
    fleet = Fleet(OnlineRouter(OnlineSettings()))
    assert fleet.rows(("a", "b"), ("A30", "")) == [0, 1]
    assert fleet.rows(("b", "c", "a"), ("V100", "", "A30")) == [1, 2, 0]
    assert fleet.router.kinds == ["A30", "V100", ""]
    assert fleet.rows(("a", "b"), ("A30", "T4")) == [0, 1]
    assert fleet.router.kinds[1] == "T4"
    spread = fleet.snapshot([0, 1], np.ones((2, FIELDS)))
    assert np.isnan(spread[2]).all()
    assert (spread[:2] == 1).all()
    assert len(fleet) == 3
    assert not fleet.outgrown(3)
    for k in range(30):
        fleet.rows((f"gone-{k}",), ("",))
    assert fleet.outgrown(3)


@pytest.mark.parametrize("outside", ["physics", "heuristic"])
def test_a_router_without_a_model_decides_over_placed_instances(outside: str) -> None:
    fleet = Fleet(OnlineRouter(OnlineSettings(outside=outside)))
    rows = fleet.rows(("a", "b"), ("", ""))
    decision = fleet.router.decide(0.0, 100, fleet.snapshot(rows, np.zeros((2, FIELDS))), rows, -1, 0.7)
    assert decision.source == "cold start"
    assert decision.probability.sum() == pytest.approx(1.0)
