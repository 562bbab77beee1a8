from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestar.data import schema as s
from lodestar.data.formats.weka import FORMAT, sniff
from readings import read_all

ROWS = {1: 41, 2: 33, 4: 215, 6: 46, 7: 12, 8: 52, 10: 172}


def call(t: Any = 0.0, blocks: Any = (1, 2), **facts: Any) -> dict[str, Any]:
    """A request of 130 tokens: two blocks and two tokens."""
    made = {"t": t, "type": "n", "model": "large", "in": 130, "out": 9, "hash_ids": list(blocks), "api_time": 7.25}
    return {**made, **facts}


def agent(t: Any, *requests: Any) -> dict[str, Any]:
    return {"t": t, "type": "subagent", "agent_id": "a", "status": "completed", "requests": list(requests)}


def session(*requests: Any, **facts: Any) -> str:
    return json.dumps({"id": "one", "block_size": 64, "hash_id_scope": "local", "requests": list(requests), **facts})


@pytest.mark.parametrize(("number", "rows"), ROWS.items())
def test_a_real_session_has_as_many_requests_and_tokens_as_it_says(traces: Path, number: int, rows: int) -> None:
    path = traces / "weka" / f"trace_{number:04}.json.gz"
    read, told = read_all(FORMAT, path), json.loads(gzip.decompress(path.read_bytes()))["totals"]["combined_tokens"]
    assert (read.lines, len(read.rows)) == (rows, rows)
    assert read.rows[s.PROMPT_TOKENS].sum() == told["input"]
    assert read.rows[s.OUTPUT_TOKENS].sum() == told["output"]
    assert set(read.rows[s.SESSION_ID]) == {f"trace_{number:04}"}
    assert (read.block_tokens, read.clock, read.zero_s) == (64, "weka", 0.0)


def raw_block_lists(requests: list[dict[str, Any]]) -> Iterator[list[int]]:
    for request in requests:
        yield from raw_block_lists(request["requests"]) if "requests" in request else [request["hash_ids"]]


def test_real_sessions_keep_their_own_blocks_and_share_none_with_others(traces: Path) -> None:
    seen: set[int] = set()
    listed = distinct = 0
    for number in ROWS:
        path = traces / "weka" / f"trace_{number:04}.json.gz"
        lists = list(raw_block_lists(json.loads(gzip.decompress(path.read_bytes()))["requests"]))
        listed, distinct = listed + sum(map(len, lists)), distinct + len(set().union(*lists))
        seen.update(*read_all(FORMAT, path).rows[s.BLOCK_IDS])
    assert len(seen) == distinct
    assert 1 - distinct / listed == pytest.approx(0.95, abs=0.005)


def test_sub_agents_of_a_real_session_come_while_they_run(traces: Path) -> None:
    rows = read_all(FORMAT, traces / "weka/trace_0004.json.gz").rows
    nested = [row for row in rows.iter_rows(named=True) if "." in row["record"].split("request ")[1]]
    assert len(nested) == 33
    assert min(row[s.ARRIVED_AT_S] for row in nested) == pytest.approx(440243.409)
    assert max(row[s.ARRIVED_AT_S] for row in nested) < 440281.797 + 132.505


def test_api_time_and_ttft_are_read_in_milliseconds() -> None:
    row = read_all(FORMAT, session(call(type="s", ttft=0.5))).rows.row(0, named=True)
    assert (row[s.E2E_MS], row[s.TTFT_MS], row[s.TPOT_MS]) == (7250.0, 500.0, None)


def test_requests_of_agents_at_any_depth_count_from_where_their_agent_began() -> None:
    inner = agent(10.0, call(0.0), call(4.0))
    read = read_all(FORMAT, session(call(0.0), agent(100.0, call(0.0), inner), call(300.0)))
    assert read.rows[s.ARRIVED_AT_S].to_list() == [0.0, 100.0, 110.0, 114.0, 300.0]
    assert read.rows["record"].to_list()[2] == "session 1, request 2.2.1"
    assert read.counted["requests of sub-agents"] == 3
    assert read.counted["requests of sub-agents whose times count from their sub-agent's start"] == 3


def test_times_of_sub_agents_may_count_from_the_session_too() -> None:
    read = read_all(FORMAT, session(agent(100.0, call(100.0), call(104.0))))
    assert read.rows[s.ARRIVED_AT_S].to_list() == [100.0, 104.0]
    assert len(read.counted) == 1


def test_a_tree_a_few_hundred_agents_deep_is_read() -> None:
    tree: dict[str, Any] = call()
    for _ in range(200):
        tree = agent(0.0, tree)
    assert read_all(FORMAT, session(tree)).lines == 1


TREES = st.recursive(st.none(), lambda below: st.lists(below, max_size=4), max_leaves=30)


def grown(tree: Any) -> dict[str, Any]:
    return call() if tree is None else agent(0.0, *map(grown, tree))


def leaves(tree: Any) -> int:
    return 1 if tree is None else sum(map(leaves, tree))


@given(st.lists(TREES, max_size=4))
def test_every_request_of_a_tree_is_one_row(trees: list[Any]) -> None:
    read = read_all(FORMAT, session(*map(grown, trees)))
    assert len(read.rows) == sum(map(leaves, trees))
    assert read.rows["record"].n_unique() == len(read.rows)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, min_size=1, max_size=50), st.text(max_size=5))
def test_no_two_blocks_of_a_session_become_one(ids: list[int], name: str) -> None:
    read = read_all(FORMAT, session(call(0.0, ids, **{"in": 64 * len(ids)}), id=name))
    assert len(set(read.rows[s.BLOCK_IDS][0])) == len(ids)


def test_block_ids_are_the_same_within_a_session_and_differ_between_sessions() -> None:
    read = read_all(FORMAT, f"{session(call(), call(1, (1, 3)))}\n{session(call(), id='two')}")
    (a, b), (c, d), (e, f) = read.rows[s.BLOCK_IDS].to_list()
    assert a == c
    assert len({a, b, d, e, f}) == 5


def test_global_block_ids_are_left_as_they_are() -> None:
    read = read_all(
        FORMAT, f"{session(call(), hash_id_scope='global')}\n{session(call(), id='two', hash_id_scope='global')}"
    )
    assert read.rows[s.BLOCK_IDS].to_list() == [[1, 2], [1, 2]]


def test_what_is_not_logged_is_said() -> None:
    notes = read_all(FORMAT, session(call(), call(model="small"), hash_id_scope=None)).notes
    assert {note.split(":")[0].split(" in one")[0] for note in notes} == {
        "each session counts from its own start, and when that was is not logged",
        "hash_id_scope is missing",
        "requests to several models lie",
    }


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (call(1, (1,)), "blocks-do-not-fit"),
        (call(1, (1, 2, 3, 4)), "blocks-do-not-fit"),
        (call(1, (1, 2.5)), "wrong-type"),
        (call(1, (1, 2**63)), "wrong-type"),
        (call(-1.0), "time-backwards"),
        (call("now"), "wrong-type"),
        (call(1, api_time=-1), "negative-latency"),
        ({"t": 1, "type": "subagent"}, "missing-key"),
        (agent("later", call(1)), "missing-key"),
        (3, "wrong-type"),
    ],
)
def test_a_broken_request_is_refused_alone(request_: Any, reason: str) -> None:
    read = read_all(FORMAT, session(call(), request_))
    assert (read.rows["line"].to_list(), read.reasons) == ([1], {2: reason})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (session(call(), block_size=None), "missing-key"),
        (session(call(), block_size=128), "wrong-value"),
        (session(call(), hash_id_scope="mine"), "wrong-value"),
        (session(call(), requests=None), "missing-key"),
        (session(call(), id=None), "missing-key"),
        (session(call())[:-5] + "}", "bad-json"),
    ],
)
def test_a_session_that_cannot_be_used_is_one_reject(text: str, reason: str) -> None:
    read = read_all(FORMAT, f"{session(call())}\n{text}")
    assert (len(read.rows), read.reasons) == (1, {2: reason})


def test_it_is_known_by_the_keys_of_a_session() -> None:
    assert sniff(session(call()).encode())
    assert not sniff(b'{"hash_ids": [], "requests": []}')
