"""A log in which two routers shared the traffic is a test of them: a coin for each request, or turns on the whole.

It is one only where the coin, or the plan of the turns, looked at nothing: what was known before is tested first, and
where it foretells the router there is no effect to print, however sure it would look.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.data.log import RequestLog
from lodestar.pipeline.estimation.beyond.arm_balance import FALSE_ALARM, Balance, arm_balance
from lodestar.pipeline.estimation.beyond.differences_in_q import differences_in_q
from lodestar.pipeline.estimation.beyond.switchback import design_of, switchback
from lodestar.pipeline.estimation.beyond.turn_balance import turn_balance
from lodestar.pipeline.estimation.blocks import BLOCKS, block_of
from lodestar.pipeline.replay.estimates.known_of_arms import covariates_before, traffic_of_turns
from lodestar.pipeline.replay.estimates.logged_inputs import MOST_LEFT_OUT

__all__ = ["router_test"]

Bools = NDArray[np.bool_]

_LEAST_P: Final = 1e-12  # a smaller one is rounding


def router_test(log: RequestLog, counted: Bools, blocks: int = BLOCKS) -> tuple[dict[str, Any] | None, str | None]:
    """Return what the two routers of a log differ by in mean TTFT when each has all of the traffic, or why not.

    Args:
        log: whose decisions name their policy.
        counted: requests that it is to be over, shape (n,).
        blocks: of consecutive requests, on which the errors rest where a coin chose; turns are blocks of their own.

    Returns:
        'design' ('per request' or 'switchback'), 'a' and 'b', the names, the estimate of b less a, and 'balance', what
        was tested of the coin or the turns; and a note. Nothing for a log of one router, and nothing but the note where
        the router was not chosen by a coin or a plan.
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
    if design == "one arm":
        return None, f"no test of routers: all {len(arm)} requests that count are of one router; expected both"
    turns = design == "switchback"
    try:
        balance = _balance(log, rows, turns)
        if not balance.passed:
            return None, _refusal(balance, turns)
        # A log names the router that decided, not how probable it was: the observed share stands for that.
        found = (
            switchback(cost, arm)
            if turns
            else differences_in_q(cost, arm, float(arm.mean()), block=block_of(len(cost), blocks))
        )
    except DataError as error:
        return None, f"no test of routers: {error}"
    test = {"design": design, "a": log.loggers[0], "b": log.loggers[1], **found.to_dict(), "balance": balance.to_dict()}
    test["notes"] = [*test["notes"], *_said(balance, float(arm.mean()), log.loggers[1], turns)]
    left_out = f"the test of routers leaves out what lacks something: {lack}" if lack else None
    return test, left_out


def _balance(log: RequestLog, rows: Bools, turns: bool) -> Balance:
    assert log.logger is not None
    arm, (a, b) = log.logger[rows], log.loggers
    if turns:
        return turn_balance(arm, traffic_of_turns(log, rows), (a, b), log.arrived_at_s[rows])
    return arm_balance(arm, covariates_before(log, rows), b)


def _refusal(balance: Balance, turns: bool) -> str:
    """Say what foretells the router, by how much, and what to do."""
    worst = balance.tests[0]
    what, instead = (
        ("no plan set these turns", "let a clock set the turns, short beside how the traffic changes")
        if turns
        else (
            "no coin chose for each request",
            "let a coin that looks at nothing choose, or let the routers take turns",
        )
    )
    p = f"= {worst.p:.2g}" if worst.p > _LEAST_P else f"< {_LEAST_P:g}"
    return (
        f"no test of routers: {worst.finding} (p {p}; of fair logs {FALSE_ALARM:.1%} are below {FALSE_ALARM:.2g}): "
        f"{what}. An effect would be mixed with that of what each was given; {instead}"
    )


def _said(balance: Balance, share: float, b: str, turns: bool) -> list[str]:
    """Tell what was tested, and where the share comes from."""
    tested, least = ", ".join(each.name for each in balance.tests), balance.tests[0].p
    found = [f"tested for balance and passed: {tested} (least p {least:.2g}; {FALSE_ALARM:.1%} of fair logs fail)"]
    if balance.untested:
        found.append(f"not tested for balance, too few or all alike: {', '.join(balance.untested)}")
    if not turns:
        found.append(f"the share of {b}, {share:.1%}, is the observed one: a log does not tell the coin's own")
    return found
