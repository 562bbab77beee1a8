from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from lodestar.data.log import RequestLog
from lodestar.data.reconstruction.reconstruct import e2e_ms_of, tpot_ms_of

NAN = np.nan


def with_latencies(
    log: RequestLog, output: list[int], ttft: list[float], tpot: list[float], e2e: list[float]
) -> RequestLog:
    return dataclasses.replace(
        log, output_tokens=np.array(output), ttft_ms=np.array(ttft), tpot_ms=np.array(tpot), e2e_ms=np.array(e2e)
    )


def test_e2e_is_what_is_logged_or_what_the_other_latencies_add_up_to(made_log: Callable[..., RequestLog]) -> None:
    log = with_latencies(
        made_log(n=6),
        output=[5, 5, 1, -1, 5, 0],
        ttft=[100, 100, 100, 100, 100, 100],
        tpot=[10, 10, NAN, 10, NAN, 10],
        e2e=[999, NAN, NAN, NAN, NAN, NAN],
    )
    assert np.array_equal(e2e_ms_of(log), [999, 140, 100, NAN, NAN, NAN], equal_nan=True)


def test_tpot_is_what_is_logged_or_the_time_between_the_tokens(made_log: Callable[..., RequestLog]) -> None:
    log = with_latencies(
        made_log(n=6),
        output=[5, 5, 1, -1, 5, 5],
        ttft=[100, 100, 100, 100, NAN, 100],
        tpot=[11, NAN, NAN, NAN, NAN, NAN],
        e2e=[140, 140, 100, 140, 140, 50],
    )
    assert np.array_equal(tpot_ms_of(log), [11, 10, NAN, NAN, NAN, NAN], equal_nan=True)
