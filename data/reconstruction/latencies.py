"""The latencies that a log leaves out but that its other columns determine: nothing here is a guess."""

from __future__ import annotations

import numpy as np

from lodestar.data.log import Floats, RequestLog

__all__ = ["e2e_ms_of", "has_no_times", "tpot_ms_of"]


def e2e_ms_of(log: RequestLog) -> Floats:
    """Return E2E (ms) as logged, else TTFT + TPOT · (output tokens − 1); NaN where neither is known.

    One output token ends with the first: its E2E is its TTFT, whatever the TPOT.
    """
    decode_ms = np.where(log.output_tokens == 1, 0.0, log.tpot_ms * (log.output_tokens - 1))
    told = np.where(log.output_tokens >= 1, log.ttft_ms + decode_ms, np.nan)
    return np.where(np.isnan(log.e2e_ms), told, log.e2e_ms)


def tpot_ms_of(log: RequestLog) -> Floats:
    """Return TPOT (ms) as logged, else (E2E − TTFT) / (output tokens − 1); NaN where neither is known.

    One output token has no time between tokens; an E2E below the TTFT tells nothing.
    """
    gaps = np.where(log.output_tokens > 1, log.output_tokens - 1.0, np.nan)
    told = (log.e2e_ms - log.ttft_ms) / gaps
    told = np.where(told >= 0, told, np.nan)
    return np.where(np.isnan(log.tpot_ms), told, log.tpot_ms)


def has_no_times(log: RequestLog) -> bool:
    """Tell whether a log says neither when requests arrived nor when they finished, only in which order they came.

    Rows written to train a predictor are such: they teach how a state answers, and nothing can be replayed from them.
    """
    return bool(np.isnan(log.arrived_at_s).all() and np.isnan(e2e_ms_of(log)).all())
