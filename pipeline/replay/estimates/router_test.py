"""A log in which two routers shared the traffic is a test of them: a coin for each request, or turns on the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.data.log import RequestLog
from lodestar.pipeline.estimation.beyond.differences_in_q import differences_in_q
from lodestar.pipeline.estimation.beyond.switchback import design_of, switchback
from lodestar.pipeline.replay.estimates.logged_inputs import MOST_LEFT_OUT

__all__ = ["router_test"]

Bools = NDArray[np.bool_]


def router_test(log: RequestLog, counted: Bools) -> tuple[dict[str, Any] | None, str | None]:
    """Return what the two routers of a log differ by in mean TTFT when each has all of the traffic, or why not.

    Args:
        log: whose decisions name their policy.
        counted: requests that it is to be over, shape (n,).

    Returns:
        'design' ('per request' or 'switchback'), 'a' and 'b', the names, and the estimate of b less a; and a note.
        Nothing for a log of one router.
    """
    if log.logger is None:
        return None, None
    if len(log.loggers) != 2:
        return None, f"no test of routers: the log is of {len(log.loggers)}; expected two"
    rows = counted & (log.logger >= 0) & (log.ttft_ms > 0)
    lack = ""
    if missing := int((counted & ~rows).sum()):
        lack = f"{missing} of {counted.sum()} requests lack a TTFT or the name of a policy"
    if missing > MOST_LEFT_OUT * counted.sum():
        return None, f"no test of routers: {lack}"
    cost, arm = log.ttft_ms[rows], log.logger[rows]
    design = design_of(arm)
    try:
        found = switchback(cost, arm) if design == "switchback" else differences_in_q(cost, arm, float(arm.mean()))
    except DataError as error:
        return None, f"no test of routers: {error}"
    left_out = f"the test of routers leaves out what lacks something: {lack}" if lack else None
    return {"design": design, "a": log.loggers[0], "b": log.loggers[1], **found.to_dict()}, left_out
