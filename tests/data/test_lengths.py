from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from lodestar.data.log import RequestLog
from lodestar.data.reconstruction.lengths import infer_output_tokens, output_tokens_of_total


def test_a_total_gives_the_length_exactly_or_not_at_all() -> None:
    total, prompt = np.array([110, 100, 90, -1, 50]), np.array([100, 100, 100, 100, -1])
    assert output_tokens_of_total(total, prompt).tolist() == [10, 0, -1, -1, -1]


def test_logged_lengths_are_kept_and_nothing_is_said(made_log: Callable[..., RequestLog]) -> None:
    log = made_log()
    lengths, found = infer_output_tokens(log)
    assert found is None
    assert np.array_equal(lengths, log.output_tokens)


def test_latencies_give_a_missing_length(made_log: Callable[..., RequestLog]) -> None:
    log = made_log(200)
    e2e_ms = log.ttft_ms + log.tpot_ms * (log.output_tokens - 1)
    missing = np.where(np.arange(200) < 50, -1, log.output_tokens)
    lengths, found = infer_output_tokens(dataclasses.replace(log, e2e_ms=e2e_ms, output_tokens=missing))
    assert np.array_equal(lengths, log.output_tokens)
    assert found is not None
    assert found.quality == 1.0
    assert found.method.startswith("50 of 200 not logged")


def test_without_its_own_tpot_a_length_comes_from_the_median_one(made_log: Callable[..., RequestLog]) -> None:
    log = made_log(200)
    steady = np.full(200, 20.0)
    e2e_ms = log.ttft_ms + steady * (log.output_tokens - 1)
    unknown = np.arange(200) < 50
    lengths, found = infer_output_tokens(
        dataclasses.replace(
            log,
            e2e_ms=e2e_ms,
            tpot_ms=np.where(unknown, np.nan, steady),
            output_tokens=np.where(unknown, -1, log.output_tokens),
        )
    )
    assert np.array_equal(lengths, log.output_tokens)
    assert found is not None
    assert "with the median TPOT (50 requests), else the median of the others (0 requests)" in found.method
