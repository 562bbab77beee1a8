"""Statistics in the logs of vLLM engines, old and new."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_logs import samples_of
from lodestar.data.formats.vllm_log import FORMAT
from lodestar.data.sources import blocks
from readings import read_all

OLD = (
    "INFO {} metrics.py:467] Avg prompt throughput: 2081.3 tokens/s, Avg generation throughput: 79.5 tokens/s, "
    "Running: 2 reqs, Swapped: 0 reqs, Pending: 3 reqs, GPU KV cache usage: 2.0%, CPU KV cache usage: 0.0%.\n"
)
HIT = "INFO {} metrics.py:483] Prefix cache hit rate: GPU: 61.48%, CPU: 0.00%\n"
NEW = (
    "{} INFO vllm.v1.metrics.loggers: Engine {:03}: Avg prompt throughput: 598.2 tokens/s, Avg generation throughput: "
    "6.4 tokens/s, Running: 1 reqs, Waiting: 4 reqs, GPU KV cache usage: 6.7%, Prefix cache hit rate: 17.1%\n"
)
DAY = "2026-01-20 06:11:{:02},161"


@pytest.mark.parametrize(("name", "rows"), {"codellama-34b-prefill": 26, "codellama-34b-train": 224}.items())
def test_every_statistics_line_of_a_new_engine_is_a_sample(traces: Path, name: str, rows: int) -> None:
    path = traces / f"vllm-otel/{name}.vllm.log.gz"
    read, samples = read_all(FORMAT, path), samples_of(FORMAT, path)
    text = gzip.decompress(path.read_bytes()).decode()
    assert text.count("Avg prompt throughput:") == rows
    assert (len(samples), len(read.rejects), read.clock, read.version) == (rows, 0, "unix", "vLLM 0.11.0")
    assert read.counted["lines that are no statistics"] + rows + 1 == len(text.splitlines())
    assert any("taken for UTC" in note for note in read.notes)
    assert samples["instance"].unique().to_list() == [f"{name}.vllm"]


def test_every_statistics_line_of_the_old_engines_is_a_sample_with_its_hit_rate(traces: Path) -> None:
    files = sorted(traces.glob("aibrix/*/engine/*.log.gz"))
    assert len(files) == 30
    for path in files:
        samples, text = samples_of(FORMAT, path), gzip.decompress(path.read_bytes()).decode()
        assert FORMAT.sniff(text.encode())
        assert len(samples) == text.count("Avg prompt throughput:") > 0
        assert samples["hit_ratio"].null_count() == len(samples) - text.count("Prefix cache hit rate:")
        assert samples["instance"].unique().to_list() == [path.name.removesuffix(".log.gz")]


def test_an_old_line_is_read_with_its_units() -> None:
    log = OLD.format("02-28 16:25:24") + HIT.format("02-28 16:25:24")
    told = {k: v for k, v in samples_of(FORMAT, log, "pods/a.log.gz").row(0, named=True).items() if v is not None}
    assert told == {
        "line": 1,
        "instance": "a",
        "sampled_at_s": 0.0,
        "running_requests": 2.0,
        "waiting_requests": 3.0,
        "kv_usage_ratio": 0.02,
        "hit_ratio": pytest.approx(0.6148),
        "prefill_tokens_per_s": 2081.3,
        "decode_tokens_per_s": 79.5,
    }


def test_times_without_a_year_have_a_clock_of_their_own_and_it_is_said() -> None:
    read = read_all(FORMAT, OLD.format("02-28 16:25:24"))
    assert (read.clock, read.zero_s) == ("vllm-log", ((31 + 27) * 24 + 16) * 3600.0 + 25 * 60 + 24)
    assert any("neither year nor zone" in note for note in read.notes)


def test_the_year_turns_between_december_and_january() -> None:
    samples = samples_of(FORMAT, OLD.format("12-31 23:59:55") + OLD.format("01-01 00:00:05"))
    assert samples["sampled_at_s"].to_list() == [0.0, 10.0]


@pytest.mark.parametrize(("days", "gap"), [(("02-28", "03-01"), 86400.0), (("02-29", "03-01"), 86400.0)])
def test_a_year_has_a_29_february_only_where_the_log_shows_it(days: tuple[str, str], gap: float) -> None:
    samples = samples_of(FORMAT, "".join(OLD.format(f"{day} 00:00:00") for day in days))
    assert samples["sampled_at_s"].to_list() == [0.0, gap]


def test_a_zone_before_the_line_is_kept_to() -> None:
    log = "2026-01-20T07:11:00.5+01:00 stdout F " + NEW.format("x", 0)
    read = read_all(FORMAT, log)
    assert (read.clock, read.zero_s, read.notes) == ("unix", 1768889460.5, set())


def test_engines_of_one_log_are_told_apart() -> None:
    log = NEW.format(DAY.format(10), 0) + NEW.format(DAY.format(9), 1)
    samples = samples_of(FORMAT, log, "server.log")
    assert samples.select("instance", "sampled_at_s").rows() == [("server", 0.0), ("server/1", -1.0)]


def test_a_time_before_the_last_of_its_engine_is_rejected() -> None:
    log = "".join(NEW.format(DAY.format(second), 0) for second in (10, 20, 15, 30))
    assert read_all(FORMAT, log).reasons == {3: "time-backwards"}
    assert samples_of(FORMAT, log)["sampled_at_s"].to_list() == [0.0, 10.0, 20.0]


def test_a_restart_is_counted_and_its_samples_go_on() -> None:
    start = "2026-01-20 06:12:00,000 INFO vllm.entrypoints.openai.api_server: vLLM API server version 0.12.0\n"
    log = NEW.format(DAY.format(10), 0) + start + NEW.format("2026-01-20 06:13:00,161", 0)
    read = read_all(FORMAT, log)
    assert (read.lines, read.counted["starts of an engine's server"], read.version) == (2, 1, "vLLM 0.12.0")


def test_swapped_requests_are_told_of() -> None:
    read = read_all(FORMAT, OLD.format("02-28 16:25:24").replace("Swapped: 0", "Swapped: 7"))
    assert read.counted["samples with swapped requests, which count neither as running nor as waiting"] == 1


def test_the_hit_rates_of_other_caches_are_not_taken_for_the_prefix_caches() -> None:
    more = ", External prefix cache hit rate: 99.0%, MM cache hit rate: 98.0%\n"
    line = NEW.format(DAY.format(10), 0)
    assert samples_of(FORMAT, line.replace("\n", more))["hit_ratio"].to_list() == [pytest.approx(0.171)]
    alone = line.replace(", Prefix cache hit rate: 17.1%\n", more)
    assert samples_of(FORMAT, alone)["hit_ratio"].to_list() == [None]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (NEW.format(DAY.format(20), 0)[:-60], "bad-text"),
        (NEW.format(DAY.format(20), 0).replace("598.2", "5.9.2"), "bad-text"),
        (NEW.format(DAY.format(20), 0).replace("598.2", "9" * 400), "not-finite"),
        (NEW.format(DAY.format(20), 0).replace("6.7%", "670.0%"), "unit-out-of-range"),
        (NEW.format(DAY.format(99), 0), "bad-text"),
        (NEW.format("yesterday", 0), "wrong-value"),
        (OLD.format("01-20 06:11:20"), "wrong-value"),
        (HIT.format("01-20 06:11:10"), "no-partner"),
    ],
)
def test_an_unusable_line_is_rejected_with_its_reason_and_text(line: str, reason: str) -> None:
    read = read_all(FORMAT, NEW.format(DAY.format(10), 0) + line)
    assert read.reasons == {2: reason}


def test_a_hit_rate_in_the_next_block_finds_its_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    log = "".join(line.format(f"02-28 16:25:{second}") for second in range(10, 20) for line in (OLD, HIT))
    whole = samples_of(FORMAT, log)
    monkeypatch.setattr(blocks.blocks, "__defaults__", (len(OLD) + 10, blocks.MOST_LINE_BYTES))
    assert samples_of(FORMAT, log).equals(whole)
    assert whole["hit_ratio"].null_count() == 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from((OLD, HIT, NEW)), st.integers(0, 300), st.integers(0, 5)), max_size=8))
def test_cut_and_mixed_lines_are_samples_or_rejects_or_counted(lines: list[tuple[str, int, int]]) -> None:
    text = [form.format(DAY.format(second), 0)[:cut] + "\n" for form, cut, second in lines]
    read = read_all(FORMAT, "".join(text))
    counted = read.counted["lines that are no statistics"] + read.counted.get(
        "prefix-cache lines, which belong to the statistics before them", 0
    )
    assert read.lines + counted == sum(line.strip() != "" for line in text)
