"""Statistics of a known engine give that engine back, as far as statistics tell it, and real ones what they predict."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lodestar.data.ingest import ingest
from lodestar.data.store import load_log, open_store
from lodestar.data.workspace import Workspace
from lodestar.models.engine import COEFFICIENTS, EngineModel
from lodestar.pipeline.replay.calibration.sample_intervals import WHY, intervals_of
from lodestar.pipeline.replay.calibration.statistics import StatisticsFit, fit_statistics

BASE = EngineModel.preset("h100-llama-3.1-8b")
#: Twice as long a step at other costs of sequences, context and prompt tokens.
TRUTH = replace(
    BASE.slowed(2.0),
    context_token_ms=3 * BASE.context_token_ms,
    prefill_context_token_ms=3 * BASE.prefill_context_token_ms,
    kv_capacity_tokens=60_000,
)
PROMPT, OUTPUT = 800, 250


@dataclass
class Served:
    """One running request of the plain loop below."""

    left: int  # prompt tokens to compute
    context: int
    output: int


def samples(
    engine: EngineModel, rate: float, seconds: float = 400, every: float = 2.0, index: int = 0, seed: int = 0
) -> pl.DataFrame:
    """What an engine that serves step by step says of itself: rates of the interval, state at its end."""
    rng, now, rows, running = np.random.default_rng(seed), 0.0, [], list[Served]()
    arrivals = deque(np.cumsum(rng.exponential(1 / rate, int(2 * rate * seconds))))
    prompt = generated = 0
    while now < seconds:
        while arrivals and arrivals[0] <= now and len(running) < engine.max_sequences:
            arrivals.popleft()
            tokens = int(rng.integers(PROMPT // 2, 3 * PROMPT // 2))
            running.append(Served(tokens, tokens, int(rng.integers(OUTPUT // 2, 3 * OUTPUT // 2))))
        now, of_prompts, of_output = step(engine, now if running else max(now, arrivals[0]), running)
        prompt, generated = prompt + of_prompts, generated + of_output
        if now >= every * (len(rows) + 1):
            used = sum(each.context for each in running) / engine.kv_capacity_tokens
            began = rows[-1][1] if rows else 0.0
            rates = prompt / (now - began), generated / (now - began)
            rows.append((index, now, float(len(running)), 0.0, round(used, 3), *rates))
            prompt = generated = 0
    names = ("running_requests", "waiting_requests", "kv_usage_ratio", "prefill_tokens_per_s", "decode_tokens_per_s")
    return pl.DataFrame(rows, schema=["instance_index", "sampled_at_s", *names], orient="row")


def step(engine: EngineModel, now: float, running: list[Served]) -> tuple[float, int, int]:
    """Take one step; return when it ends, and the tokens of prompts that it ended and of output that it made."""
    decoding = [each for each in running if not each.left]
    budget, whole, computed, attention = engine.max_batched_tokens - len(decoding), 0, 0, 0.0
    context = sum(each.context for each in decoding)
    for each in running:
        chunk = min(each.left, budget)
        attention += chunk * (each.context - each.left + chunk / 2)
        budget, computed, each.left = budget - chunk, computed + chunk, each.left - chunk
        if chunk and not each.left:
            whole += each.context
            decoding.append(each)
    time = engine.step_ms(prompt_tokens=computed, decoding=len(decoding), context_tokens=context, attention=attention)
    for each in decoding:
        each.context, each.output = each.context + 1, each.output - 1
    running[:] = [each for each in running if each.output > 0]
    return now + time / 1000, whole, len(decoding)


@pytest.fixture(scope="module")
def fit() -> StatisticsFit:
    """An engine from load that rises and falls."""
    parts = [samples(TRUTH, rate, seconds=300, index=i, seed=i) for i, rate in enumerate((0.5, 2.0, 4.0, 6.0))]
    return fit_statistics(pl.concat(parts), PROMPT, OUTPUT, BASE)


@pytest.mark.parametrize("name", ["decode_base_ms", "context_token_ms", "prompt_token_ms"])
def test_samples_of_a_known_engine_give_its_coefficients(fit: StatisticsFit, name: str) -> None:
    assert fit.identified[name], fit.notes
    truth = getattr(TRUTH, name)
    assert getattr(fit.engine, name) == pytest.approx(truth, abs=max(0.1 * truth, 3 * fit.standard_errors[name]))


def test_it_predicts_intervals_that_it_has_not_seen(fit: StatisticsFit) -> None:
    assert fit.error_ratio < 0.06
    assert abs(fit.bias_ratio) < 0.02
    assert len(fit.draws) == 200


def test_capacity_comes_from_usage_that_the_same_requests_add(fit: StatisticsFit) -> None:
    assert fit.identified["kv_capacity_tokens"]
    assert fit.engine.kv_capacity_tokens == pytest.approx(TRUTH.kv_capacity_tokens, rel=0.05)


def test_what_follows_the_base_is_said(fit: StatisticsFit) -> None:
    assert not fit.identified["prefill_base_ms"]
    ratio = fit.engine.prefill_base_ms / fit.engine.decode_base_ms
    assert ratio == pytest.approx(BASE.prefill_base_ms / BASE.decode_base_ms)
    assert any("attention_ms keep the base's ratios" in note for note in fit.notes)


def test_a_slow_instance_is_found() -> None:
    engines = [TRUTH, TRUTH, TRUTH.slowed(1.5)]
    parts = [samples(engine, 4.0, seconds=200, index=i, seed=i) for i, engine in enumerate(engines)]
    scales = fit_statistics(pl.concat(parts), PROMPT, OUTPUT, BASE).scales
    assert scales[2].factor / scales[0].factor == pytest.approx(1.5, rel=0.1)
    assert scales[1].factor / scales[0].factor == pytest.approx(1.0, rel=0.05)


def test_without_usage_context_and_sequences_are_told_together_only() -> None:
    fit = fit_statistics(samples(TRUTH, 4.0).drop("kv_usage_ratio"), PROMPT, OUTPUT, BASE)
    assert not fit.identified["context_token_ms"]
    assert not fit.identified["decode_sequence_ms"]
    assert not fit.identified["kv_capacity_tokens"]
    assert fit.engine.kv_capacity_tokens == BASE.kv_capacity_tokens
    assert any("no usage is logged" in note for note in fit.notes)


def test_too_few_busy_intervals_leave_the_base_and_say_so() -> None:
    fit = fit_statistics(samples(TRUTH, 0.1, seconds=60), PROMPT, OUTPUT, BASE)
    assert replace(fit.engine, kv_capacity_tokens=BASE.kv_capacity_tokens) == BASE
    assert not any(fit.identified[name] for name in COEFFICIENTS)
    assert "stretches of busy time fit no step time" in fit.notes[0]


def test_the_order_of_the_samples_does_not_matter() -> None:
    made = samples(TRUTH, 4.0)
    one, other = (fit_statistics(rows, PROMPT, OUTPUT, BASE) for rows in (made, made.reverse()))
    assert one == other
    assert one.rows > 10


def interval(**changes: list[float | None]) -> str | None:
    told = {
        "instance_index": [0, 0],
        "sampled_at_s": [0.0, 10.0],
        "running_requests": [3.0, 3.0],
        "waiting_requests": [0.0, 0.0],
        "prefill_tokens_per_s": [0.0, 50.0],
        "decode_tokens_per_s": [60.0, 60.0],
    }
    return intervals_of(pl.DataFrame(told | changes), prompt_tokens_mean=500.0)[WHY][0]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, None),
        ({"prefill_tokens_per_s": [0.0, 200.0]}, "saw too many requests come and go to know what ran"),
        ({"prefill_tokens_per_s": [0.0, 200.0], "waiting_requests": [1.0, 2.0]}, None),
        ({"running_requests": [0.0, 3.0]}, "begin or end idle"),
        ({"decode_tokens_per_s": [60.0, None]}, "do not say what ran or how fast"),
        ({"kv_usage_ratio": [0.5, 0.99]}, "may hold preempted work, which no rate counts"),
        ({"kv_usage_ratio": [0.5, 0.99], "preemptions": [4.0, 4.0]}, None),
        ({"kv_usage_ratio": [0.5, 0.6], "preemptions": [4.0, 5.0]}, "may hold preempted work, which no rate counts"),
    ],
)
def test_an_interval_counts_only_if_it_was_busy_throughout(
    changes: dict[str, list[float | None]], why: str | None
) -> None:
    assert interval(**changes) == why


def test_counters_tell_the_share_of_an_interval_that_was_cached() -> None:
    told = pl.DataFrame(
        {
            "instance_index": [0, 0],
            "sampled_at_s": [0.0, 10.0],
            "prefill_tokens_per_s": [0.0, 50.0],
            "prefix_queried_tokens": [1000.0, 1500.0],
            "prefix_hit_tokens": [900.0, 1000.0],
        }
    )
    assert intervals_of(told, 500.0)["hit"].to_list() == [0.2]


def real(folder: Path, home: Path) -> tuple[pl.DataFrame, float, float]:
    workspace = Workspace.open(home)
    files = [folder / name for name in ("requests.jsonl.gz", "timeseries.csv.gz", "meta.json.gz")]
    ingest(workspace, files, "real")
    with open_store(workspace) as con:
        log = load_log(con, "real")
        told = con.sql("FROM engine_samples").pl()
    return told, float(log.prompt_tokens.mean()), float(log.output_tokens.mean())


@pytest.mark.parametrize(
    ("folder", "preset"),
    [("rtxpro6000-Llama-3.1-8B", "rtxpro6000-llama-3.1-8b"), ("rtxpro6000-Qwen3-32B", "rtxpro6000-qwen3-32b-tp2")],
)
def test_real_samples_each_second_tell_what_kernels_alone_do_not(
    traces: Path, tmp_path: Path, folder: str, preset: str
) -> None:
    base = replace(EngineModel.preset(preset), max_sequences=128)
    fit = fit_statistics(*real(traces / "vllm-timeseries" / folder, tmp_path), base)
    assert fit.identified["decode_base_ms"]
    assert fit.identified["prompt_token_ms"]
    assert fit.engine.decode_base_ms > base.decode_base_ms  # what the engine does besides its kernels
    assert fit.error_ratio < 0.1
    assert abs(fit.bias_ratio) < 0.02
