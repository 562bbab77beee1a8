from __future__ import annotations

import gzip
import json
from itertools import permutations
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lodestar.data import schema as s
from lodestar.data.aibrix.common import GatewayLog
from lodestar.data.aibrix.pairing import Span, paired
from lodestar.data.aibrix.text_blocks import text_id
from lodestar.data.formats.aibrix_client import FORMAT, sniff
from lodestar.data.formats.aibrix_gateway import gateway_log
from lodestar.data.reading import Reading
from lodestar.data.sources.source import from_bytes
from readings import read_all

#: Arm → requests that can be joined; the others have a twin of the same token counts at the same time.
JOINED = {"random": 299, "least-request": 304, "prefix-cache": 320, "prefix-cache-and-load": 297}


def record(number: int = 0, **changes: Any) -> dict[str, Any]:
    start = 100.0 + number
    made = {
        "request_id": number,
        "status": "success",
        "input": [{"role": "user", "content": "ab" * 100}],
        "prompt_tokens": 100 + number,
        "output_tokens": 11,
        "latency": 1.5,
        "start_time": start,
        "end_time": start + 1.5,
        "ttft": 0.5,
        "tpot": 1 / 11,
    }
    return {key: value for key, value in {**made, **changes}.items() if value is not None}


def log(*records: Any) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in records)


def content(traces: Path, arm: str, name: str) -> bytes:
    return gzip.decompress((traces / "aibrix" / arm / name).read_bytes())


def read_joined(client: bytes, *gateways: bytes) -> list[Reading]:
    source = from_bytes(client)
    source.companions = tuple(from_bytes(each, f"gateway-{place}") for place, each in enumerate(gateways))
    return list(FORMAT.read(source))


@pytest.fixture(scope="module", params=list(JOINED))
def arm(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_sample_alone_has_320_requests_by_the_clients_own_clock(traces: Path, arm: str) -> None:
    read = read_all(FORMAT, traces / "aibrix" / arm / "client-output.jsonl.gz")
    assert (len(read.rows), read.clock, read.block_tokens) == (320, "aibrix-client", 16)
    assert read.rows[s.INSTANCE].null_count() == 320
    # The workload that was sent spans 31.753 s; a client is never early.
    assert 31.753 <= read.rows[s.ARRIVED_AT_S].max() - read.rows[s.ARRIVED_AT_S].min() < 31.9


def test_latencies_are_milliseconds_and_fit_each_other(traces: Path, arm: str) -> None:
    rows = read_all(FORMAT, traces / "aibrix" / arm / "client-output.jsonl.gz").rows
    raw = [json.loads(line) for line in content(traces, arm, "client-output.jsonl.gz").splitlines()]
    assert rows[s.TTFT_MS].mean() == pytest.approx(1e3 * sum(each["ttft"] for each in raw) / 320)
    whole = rows[s.TTFT_MS] + rows[s.TPOT_MS] * (rows[s.OUTPUT_TOKENS] - 1)
    assert (whole - rows[s.E2E_MS]).abs().max() < 1e-6


def test_two_prompts_share_blocks_as_far_as_their_texts_are_equal(traces: Path) -> None:
    raw = [json.loads(line) for line in content(traces, "random", "client-output.jsonl.gz").splitlines()]
    text = [each["input"][0]["content"] for each in raw]
    blocks = read_all(FORMAT, traces / "aibrix/random/client-output.jsonl.gz").rows.sort("line")[s.BLOCK_IDS].to_list()
    for first, second in [(0, 1), (0, 200), (3, 7), (17, 219)]:
        same = next(n for n, (a, b) in enumerate(zip(text[first], text[second], strict=False)) if a != b)
        shared = sum(a == b for a, b in zip(blocks[first], blocks[second], strict=False))
        assert shared == same // 21  # the characters that are taken for a block of 16 tokens


def test_a_client_joined_to_its_gateway_has_the_decisions(traces: Path, arm: str) -> None:
    rows, gateway = read_joined(content(traces, arm, "client-output.jsonl.gz"), content(traces, arm, "gateway.klog.gz"))
    assert rows.rows[s.INSTANCE].count() == rows.rows[s.POLICY].count() == JOINED[arm]
    assert rows.rows[s.POLICY].drop_nulls().unique().to_list() == [arm]
    assert (rows.lines, rows.clock) == (320, "unix")
    assert gateway.partner == 1
    assert gateway.lines - len(gateway.rejects) == JOINED[arm]
    assert set(gateway.rejects["reason"]) <= {"no-partner"}


def test_requests_that_began_and_never_ended_have_no_partner(traces: Path) -> None:
    _, gateway = read_joined(
        content(traces, "prefix-cache", "client-output.jsonl.gz"), content(traces, "prefix-cache", "gateway.klog.gz")
    )
    assert (gateway.lines, len(gateway.rejects)) == (323, 3)
    assert all("no line tells of its end" in detail for detail in gateway.rejects["detail"])


def test_the_gateways_own_texts_confirm_what_counts_and_times_join(traces: Path) -> None:
    """The prefix-cache log repeats each prompt, which the join here is not told."""
    gateway = gateway_log(from_bytes(content(traces, "prefix-cache", "gateway.klog.gz")))
    servers, texts = _servers(gateway)
    clients, prompts = [], []
    for line in content(traces, "prefix-cache", "client-output.jsonl.gz").splitlines():
        each = json.loads(line)
        start = each["start_time"]
        key = each["prompt_tokens"], each["output_tokens"]
        clients.append(Span(key, start, start + each["ttft"], each["end_time"]))
        prompts.append(each["input"][0]["content"])
    found = paired(clients, servers).server_of
    told = [texts[server] == text_id(prompts[client]) for client, server in found.items() if texts[server] is not None]
    assert len(found) == 312
    assert len(told) == 296
    assert all(told)


def _servers(gateway: GatewayLog) -> tuple[list[Span], list[str | None]]:
    ended = [each for each in gateway.finished if each.ended_us is not None]
    spans = [
        Span(
            (each.fields[s.PROMPT_TOKENS], each.fields[s.OUTPUT_TOKENS]),
            (each.arrived_us or 0) / 1e6,
            (each.first_us or 0) / 1e6,
            (each.ended_us or 0) / 1e6,
        )
        for each in ended
    ]
    return spans, [each.decision.text if each.decision else None for each in ended]


def test_where_prompts_are_logged_every_joined_request_has_its_candidates(traces: Path) -> None:
    rows, _ = read_joined(
        content(traces, "prefix-cache", "client-output.jsonl.gz"), content(traces, "prefix-cache", "gateway.klog.gz")
    )
    chosen = rows.rows.select("line", chosen=s.INSTANCE).join(rows.candidates, on="line")
    assert chosen.group_by("line").len().rows() != []
    assert chosen["line"].n_unique() == 320
    hits = chosen.filter(pl.col("chosen") == pl.col(s.INSTANCE))[s.HIT_RATIO]
    assert hits.mean() == pytest.approx(0.8545, abs=2e-3)


@pytest.mark.parametrize(("arm", "other"), list(permutations(JOINED, 2)))
def test_the_log_of_another_run_of_the_same_workload_is_not_joined(traces: Path, arm: str, other: str) -> None:
    rows, gateway = read_joined(
        content(traces, arm, "client-output.jsonl.gz"), content(traces, other, "gateway.klog.gz")
    )
    assert rows.rows[s.INSTANCE].count() == 0
    assert len(gateway.rejects) == gateway.lines
    assert rows.clock == "aibrix-client"
    assert any("not joined" in note for note in rows.notes)


def test_two_gateways_share_the_requests(traces: Path) -> None:
    lines = content(traces, "random", "gateway.klog.gz").splitlines(keepends=True)
    named = [line.split(b'requestID="')[1][:36] if b'requestID="' in line else None for line in lines]
    first = set(list(dict.fromkeys(filter(None, named)))[:100])
    logs = [
        b"".join(line for line, each in zip(lines, named, strict=True) if each is None or (each in first) == mine)
        for mine in (True, False)
    ]
    parts = read_joined(content(traces, "random", "client-output.jsonl.gz"), *logs)
    assert [(part.partner, part.lines) for part in parts] == [(0, 320), (1, 100), (2, 220)]
    assert parts[0].rows[s.INSTANCE].count() == JOINED["random"]


def test_a_cut_prompt_text_and_a_list_of_messages_are_both_prompts() -> None:
    read = read_all(
        FORMAT, log(record(0, input="ab" * 100), record(1, input=[{"content": "ab" * 50}] * 2), record(2, input=7))
    )
    assert [None if each is None else len(each) for each in read.rows[s.BLOCK_IDS]] == [6, 6, None]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"status": "lost"}, "wrong-value"),
        ({"status": None}, "missing-key"),
        ({"prompt_tokens": None}, "missing-key"),
        ({"start_time": "noon"}, "wrong-type"),
        ({"latency": -1.0}, "negative-latency"),
        ({"output_tokens": 1.5}, "wrong-type"),
    ],
)
def test_a_bad_field_is_refused_with_its_reason(change: dict[str, Any], reason: str) -> None:
    assert read_all(FORMAT, log(record(1), record(2, **change))).reasons == {2: reason}


def test_an_error_without_tokens_is_refused_and_one_with_them_is_kept() -> None:
    read = read_all(
        FORMAT,
        log(record(0), record(1, status="error", ttft=None, tpot=None), record(2, status="error", prompt_tokens=None)),
    )
    assert read.rows[s.STATUS].to_list() == ["ok", "error"]
    assert read.reasons == {3: "missing-key"}


def test_a_tpot_over_all_tokens_is_stored_over_those_after_the_first() -> None:
    read = read_all(FORMAT, log(record(0), record(1, tpot=0.1)))
    assert read.rows[s.TPOT_MS].to_list() == pytest.approx([100.0, 100.0])


def test_it_knows_its_own(traces: Path) -> None:
    assert sniff(content(traces, "random", "client-output.jsonl.gz")[: 1 << 18])
    assert sniff(b'{"request_id": 3, "status": "success", "input": [{"role": "user", "content": "' + b"a" * 1000)
    assert not sniff(b'{"request_id": 3, "status": "success", "ttft": 1}\n')
