"""Output lengths that a log leaves out: exact from totals, inferred from latencies."""

from __future__ import annotations

import numpy as np

from lodestar.data import schema as s
from lodestar.data.errors import DataError
from lodestar.data.log import Floats, Inferred, Ints, RequestLog
from lodestar.data.reconstruction.latencies import tpot_ms_of

__all__ = ["infer_output_tokens", "output_tokens_of_total"]


def output_tokens_of_total(total_tokens: Ints, prompt_tokens: Ints) -> Ints:
    """Return total - prompt tokens, which is exact; -1 where either is unknown (negative) or the total is too small.

    >>> output_tokens_of_total(np.array([2341, -1, 5]), np.array([2340, 10, 9])).tolist()
    [1, -1, -1]
    """
    told = (total_tokens >= 0) & (prompt_tokens >= 0) & (total_tokens >= prompt_tokens)
    return np.where(told, total_tokens - prompt_tokens, -1).astype(np.int64)


def infer_output_tokens(log: RequestLog) -> tuple[Ints, Inferred | None]:
    """Fill the output lengths: 1 + (E2E - TTFT) / TPOT, else with the log's median TPOT, else the median length.

    The quality is how often the formula gives a logged length to within one token in twenty, where both are known.
    """
    missing = log.output_tokens < 0
    if not missing.any():
        return log.output_tokens, None
    own = _told(log, log.tpot_ms)
    typical = _told(log, np.full(len(log), _median(tpot_ms_of(log))))
    known = np.where(missing, np.nan, log.output_tokens)
    filled = np.where(missing, np.where(np.isnan(own), typical, own), known)
    if np.isnan(filled).all():
        raise DataError(
            f"dataset {log.dataset!r}: no output tokens, and no TTFT, TPOT and E2E to infer them from; "
            "expected either. Ingest a log that has them"
        )
    by_median_tpot = int((missing & np.isnan(own) & ~np.isnan(filled)).sum())
    guessed = np.isnan(filled)
    checked = ~missing & ~np.isnan(own)
    close = np.abs(own - known)[checked] <= np.maximum(known[checked] / 20, 1)
    return np.where(guessed, _median(filled), filled).round().astype(np.int64), Inferred(
        s.OUTPUT_TOKENS,
        f"{missing.sum()} of {len(log)} not logged: 1 + (E2E - TTFT) / TPOT where known; with the median TPOT "
        f"({by_median_tpot} requests), else the median of the others ({guessed.sum()} requests)",
        "share of the logged lengths that this gives within 5 %" if checked.any() else None,
        float(close.mean()) if checked.any() else None,
    )


def _told(log: RequestLog, tpot_ms: Floats) -> Floats:
    told = np.round(1 + (log.e2e_ms - log.ttft_ms) / np.where(tpot_ms > 0, tpot_ms, np.nan))
    return np.where(told >= 1, told, np.nan)


def _median(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else float("nan")
