"""Fixtures follow the documented schema, inference-perf's own models of a request's life: no real report."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lodestar.data import schema as s
from lodestar.data.formats.inference_perf import FORMAT, sniff
from readings import read_all


def older(info: dict[str, Any] | None = None, **facts: Any) -> dict[str, Any]:
    """A request of the builds that counted tokens in `info` itself."""
    counted = {"input_tokens": 100, "output_tokens": 5, "output_token_times": [1000.5, 1000.5, 1000.7, 1000.9]}
    made = {
        "start_time": 1000.0,
        "end_time": 1001.0,
        "request": "{}",
        "response": "",
        "info": {**counted, **(info or {})},
    }
    return {**made, "error": None, **facts}


def newer(**response: Any) -> dict[str, Any]:
    """A request of the builds that tell the server's counts from the client's."""
    metrics = {"output_tokens": 4, "server_usage": None, "output_token_times": [1000.5, 1000.9], **response}
    info = {"request_metrics": {"text": {"input_tokens": 100}}, "response_metrics": metrics, "input_tokens": 100}
    return {"start_time": 1000.0, "end_time": 1001.0, "request": "{}", "response": "", "info": info, "error": None}


def test_latencies_come_from_the_times_of_the_tokens() -> None:
    row = read_all(FORMAT, json.dumps([older()])).rows.row(0, named=True)
    assert row[s.TTFT_MS] == pytest.approx(500)
    # Four times for five tokens: what counts are tokens.
    assert row[s.TPOT_MS] == pytest.approx(400 / 4)
    assert row[s.E2E_MS] == pytest.approx(1000)
    assert (row[s.PROMPT_TOKENS], row[s.OUTPUT_TOKENS], row[s.STATUS]) == (100, 5, "ok")


def test_counts_are_the_servers_where_it_told_them() -> None:
    usage = {"prompt_tokens": 117, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 64}}
    rows = read_all(FORMAT, json.dumps([newer(server_usage=usage), newer()])).rows
    assert rows.select(s.PROMPT_TOKENS, s.OUTPUT_TOKENS, s.CACHED_TOKENS).rows() == [(117, 3, 64), (100, 4, None)]
    assert rows[s.TPOT_MS].to_list() == pytest.approx([400 / 2, 400 / 3])


def test_times_are_of_the_clients_own_clock() -> None:
    read = read_all(FORMAT, json.dumps([older(), older(start_time=1000.25)]))
    assert (read.clock, read.zero_s) == ("inference-perf", 1000.0)
    assert read.rows[s.ARRIVED_AT_S].to_list() == [0.0, 0.25]


def test_a_request_without_token_times_has_only_its_whole_duration() -> None:
    row = read_all(FORMAT, json.dumps([older({"output_token_times": []})])).rows.row(0, named=True)
    assert (row[s.TTFT_MS], row[s.TPOT_MS], row[s.E2E_MS]) == (None, None, pytest.approx(1000))


def test_a_failed_request_is_kept_as_one() -> None:
    failed = older(
        {"output_tokens": 0, "output_token_times": []}, error={"error_type": "TimeoutError", "error_msg": ""}
    )
    assert read_all(FORMAT, json.dumps([failed])).rows[s.STATUS][0] == "error"


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (older(end_time=999.0), "time-backwards"),
        (older({"output_token_times": [999.0, 1000.5]}), "time-backwards"),
        (older({"output_token_times": [1000.5, 1000.4]}), "time-backwards"),
        (older({"output_token_times": [1000.5, "late"]}), "wrong-type"),
        (older({"output_token_times": [1, 10**400]}), "not-finite"),
        (older({"input_tokens": 0}), "wrong-value"),
        (older(info_=1, error="Timeout"), "wrong-type"),
        (older(start_time=None), "missing-key"),
        (older(end_time=None), "missing-key"),
        ("text", "wrong-type"),
    ],
)
def test_a_broken_request_is_refused_alone(request_: Any, reason: str) -> None:
    read = read_all(FORMAT, json.dumps([older(), request_]))
    assert (len(read.rows), read.reasons) == (1, {2: reason})


@pytest.mark.parametrize(("document", "reason"), [("{}", "wrong-type"), ('[{"start_time": 1', "bad-json")])
def test_what_is_no_array_is_one_reject(document: str, reason: str) -> None:
    assert read_all(FORMAT, document).reasons == {1: reason}


def test_it_is_known_by_how_its_first_request_starts() -> None:
    assert sniff(json.dumps([older()], indent=2).encode()[:60])
    assert not sniff(b'[{"start_time": "x", "end_time"')
