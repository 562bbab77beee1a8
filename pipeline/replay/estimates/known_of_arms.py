"""What a log knew of a request before one of two routers had it, and of the traffic in the turns of each."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.log import RequestLog
from lodestar.pipeline.estimation.beyond.arm_balance import Covariate, quantile_buckets
from lodestar.pipeline.estimation.beyond.known import costs_before, costs_seen, in_flight
from lodestar.pipeline.estimation.beyond.turn_balance import Traffic

__all__ = ["covariates_before", "traffic_of_turns"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_QUARTERS: Final = 4
_TENTHS: Final = 10
_SEEN: Final = 16  # TTFTs that a router may go by
_DAY_S: Final = 86_400
_PART_OF_DAY_S: Final = 10_800


def covariates_before(log: RequestLog, rows: Bools) -> list[Covariate]:
    """Return what may have moved a router to take a request: load, latencies, the prompt, the time, routers before.

    Args:
        log: whose decisions name their policy.
        rows: requests to speak of, all with a router, shape (n,).
    """
    n, arm = int(rows.sum()), log.logger[rows] if log.logger is not None else np.zeros(0, dtype=np.int64)
    found = [
        _by_quarter("requests in flight", _in_flight(log)[rows], "that came with {} requests in flight"),
        _by_quarter("TTFT before", _ttft_before(log, rows), "that came when the mean TTFT was {} ms"),
        _by_quarter("prompt tokens", log.prompt_tokens[rows], "of {} prompt tokens"),
        Covariate("time", np.arange(n) * _TENTHS // n, [f"of tenth {k + 1} of the log" for k in range(_TENTHS)]),
        _by_arms_before(log, arm),
    ]
    arrived_at_s = log.arrived_at_s[rows]
    if np.isfinite(arrived_at_s).all() and np.ptp(arrived_at_s) > _DAY_S:
        part = (arrived_at_s % _DAY_S // _PART_OF_DAY_S).astype(np.int64)
        texts = [f"that came {3 * k} to {3 * k + 3} hours after the log's first, by the day" for k in range(8)]
        found.append(Covariate("time of day", part, texts))
    if log.session is not None:
        found.append(_by_session(log, rows, arm))
    return found


def traffic_of_turns(log: RequestLog, rows: Bools) -> list[Traffic]:
    """Return what came while each of two routers had all of the traffic, and how busy it was when it took over.

    Args:
        log: whose decisions name their policy.
        rows: requests to speak of, shape (n,).
    """
    arrived_at_s = log.arrived_at_s[rows]
    gaps_s = np.diff(arrived_at_s, prepend=2 * arrived_at_s[0] - arrived_at_s[1])
    return [
        Traffic("prompt tokens", log.prompt_tokens[rows].astype(np.float64)),
        Traffic("seconds between arrivals", gaps_s),
        Traffic("places in the log", np.arange(len(gaps_s), dtype=np.float64)),
        Traffic("requests in flight", _in_flight(log)[rows], at_switch=True),
    ]


def _in_flight(log: RequestLog) -> Floats:
    """Return the load that each request met, NaN where the log has no times of arrival."""
    if not np.isfinite(log.arrived_at_s).all():
        return np.full(len(log), np.nan)
    lasted_ms = np.fmax(np.where(log.e2e_ms > 0, log.e2e_ms, log.ttft_ms), 0.0)
    return in_flight(log.arrived_at_s, log.arrived_at_s + lasted_ms / 1000).astype(np.float64)


def _ttft_before(log: RequestLog, rows: Bools) -> Floats:
    """Return the mean of the TTFTs before each request, of those that were over where the log has the times."""
    ttft_ms, arrived_at_s = log.ttft_ms[rows], log.arrived_at_s[rows]
    if np.isfinite(arrived_at_s).all():
        return costs_seen(ttft_ms, arrived_at_s + ttft_ms / 1000, arrived_at_s, _SEEN)
    return np.asarray(costs_before(ttft_ms)[:, 1] + ttft_ms.mean())


def _by_quarter(name: str, values: Floats | Ints, text: str) -> Covariate:
    bucket, between = quantile_buckets(np.asarray(values, dtype=np.float64), _QUARTERS)
    return Covariate(name, bucket, [text.format(each) for each in between])


def _by_arms_before(log: RequestLog, arm: Ints) -> Covariate:
    """Bucket each request by the routers of the two before it."""
    bucket = np.full(len(arm), -1, dtype=np.int64)
    bucket[2:] = 2 * arm[:-2] + arm[1:-1]
    a, b = log.loggers
    return Covariate(
        "routers of the two requests before",
        bucket,
        [f"after one of {first} and one of {then}" for first in (a, b) for then in (a, b)],
    )


def _by_session(log: RequestLog, rows: Bools, arm: Ints) -> Covariate:
    """Bucket each request by the router of the request before it in its conversation."""
    assert log.session is not None
    session, bucket = log.session[rows], np.full(len(arm), -1, dtype=np.int64)
    order = np.argsort(session, kind="stable")
    follows = (session[order[1:]] == session[order[:-1]]) & (session[order[1:]] >= 0)
    bucket[order[1:][follows]] = arm[order[:-1][follows]]
    return Covariate(
        "router of the conversation so far", bucket, [f"whose conversation {name} had before" for name in log.loggers]
    )
