from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import quote

import httpx
import numpy as np
import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_d_app import Served, ask, llm_d_rows, true_ms
from mutations import mutated
from serving import serving

POSTS = ("/predict", "/predict/bulk", "/predict/bulk/strict", "/add_training_data_bulk", "/flush", "/reload")
ENTRY = llm_d_rows(1)[0] | {"actual_ttft_ms": 120.0, "actual_tpot_ms": 0.0, "timestamp": "2026-08-10T12:00:00Z"}
BODIES = tuple(
    json.dumps(body).encode()
    for body in (
        ENTRY,
        {"requests": [ENTRY, *llm_d_rows(2)]},
        {"entries": [ENTRY, ENTRY | {"pod_type": "prefill"}]},
        {"flush_training_data": True, "flush_test_data": False, "flush_metrics": True, "reason": "new"},
    )
)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["requests", "entries"]), inner),
    max_leaves=20,
)
TRAINED, EMPTY = Served(), Served({})


@given(path=st.sampled_from(POSTS), body=mutated(BODIES))
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_no_broken_body_is_an_error_of_the_server(path: str, body: bytes) -> None:
    told = ask(TRAINED.app, path, body)
    assert told.status_code in (200, 202, 422)
    assert ask(EMPTY.app, path, body).status_code in (200, 202, 422, 503)
    json.loads(told.content, parse_constant=pytest.fail)  # neither NaN nor infinity, which are no JSON
    if told.status_code == 422:
        assert told.json()["detail"]


@given(path=st.sampled_from(POSTS), body=ANY_JSON)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_json_is_an_error_of_the_server(path: str, body: object) -> None:
    content = json.dumps(body).encode()
    assert ask(TRAINED.app, path, content).status_code in (200, 202, 422)
    assert ask(EMPTY.app, path, content).status_code in (200, 202, 422, 503)


@given(name=st.text(st.characters(codec="utf-8", exclude_characters="/?#"), min_size=1, max_size=20))
@settings(max_examples=25, deadline=None)
def test_no_name_is_an_error_of_the_server(name: str) -> None:
    quoted = quote(name, safe="")
    for page in ("info", "download", "lgb/txt", "lgb/importances", "xgb/json"):
        assert ask(TRAINED.app, f"/model/{quoted}/{page}").status_code in (200, 404)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The routes behind a socket of their own."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(TRAINED.app, log_level="error", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.05)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def test_a_hundred_rows_over_a_socket_are_what_they_are_in_process(address: str) -> None:
    body = {"requests": llm_d_rows(100)}
    expected = [item["ttft_ms"] for item in ask(TRAINED.app, "/predict/bulk/strict", body).json()["predictions"]]
    taken_ms = []
    with httpx.Client(base_url=address, timeout=300) as client:
        for _ in range(50):
            told = client.post("/predict/bulk/strict", json=body)
            assert told.status_code == 200
            assert told.headers["content-type"] == "application/json"
            taken_ms.append(told.json()["processing_time_ms"])
        assert client.post("/flush").json()["success"] is True
        assert client.get("/predict").status_code == 405
    assert [item["ttft_ms"] for item in told.json()["predictions"]] == expected
    assert min(taken_ms) < 10.0  # what it costs; a busy machine adds to the others


def test_ten_thousand_rows_do_not_hold_up_others(address: str) -> None:
    large = {"requests": llm_d_rows(100) * 100}
    with httpx.Client(base_url=address, timeout=300) as client, httpx.Client(base_url=address, timeout=300) as other:
        answers: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: answers.append(client.post("/predict/bulk/strict", json=large)))
        thread.start()
        small = [other.post("/predict", json=llm_d_rows(1)[0]).status_code for _ in range(20)]
        thread.join(300)
    assert set(small) == {200}
    assert answers[0].json()["successful_predictions"] == 10_000


@pytest.mark.slow
def test_a_server_that_began_with_nothing_answers_llm_d_once_it_has_learned() -> None:
    rows = llm_d_rows(1000, seed=3)
    sent = [
        row | {"actual_ttft_ms": 0.0 if i % 2 else ttft_ms, "actual_tpot_ms": tpot_ms if i % 2 else 0.0}
        for i, (row, ttft_ms, tpot_ms) in enumerate(zip(rows, *true_ms(rows), strict=True))
    ]
    with serving("--learn", "--refit-s", "1") as server:
        assert server.get("/readyz")[0] == server.post("/predict", rows[0])[0] == 503
        assert server.post("/add_training_data_bulk", {"entries": sent})[0] == 202
        server.until("lodestar_reloads_total", 1.0)
        assert server.get("/readyz")[0] == 200
        new = llm_d_rows(100, seed=7)
        status, told = server.post("/predict/bulk/strict", {"requests": new})
        assert status == 200
        for truth, name in zip(true_ms(new), ("ttft_ms", "tpot_ms"), strict=True):
            found = np.array([item[name] for item in told["predictions"]])
            assert np.abs(found - truth).mean() < 0.25 * np.abs(truth - truth.mean()).mean()
        status, flushed = server.post("/flush", {"reason": "a new fleet"})
        assert (status, flushed["ttft_training_samples_flushed"]) == (200, 500)
