"""A policy's one-step value by one estimator, with its interval: what tables and documents show."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError, DataError
from lodestar.pipeline.estimation.blocks import block_of, block_sums
from lodestar.pipeline.estimation.estimators import Estimator, estimators
from lodestar.pipeline.estimation.intervals.interval import Interval
from lodestar.pipeline.estimation.intervals.linearised import linearised_interval
from lodestar.pipeline.estimation.intervals.same_requests import same_requests_interval
from lodestar.pipeline.estimation.json_ready import json_ready
from lodestar.pipeline.estimation.near_overload import near_overload
from lodestar.pipeline.estimation.one_step import ESTIMAND, OneStepInput, Tried, Valued, requests_worth, weights
from lodestar.pipeline.estimation.tails.support import effective_size

__all__ = ["Estimate", "estimate"]

Floats = NDArray[np.float64]

_RATIOS: Final = ("snipw", "sndr")  # and what is made of them, such as balanced-snipw
_FEW_BLOCKS: Final = 2 / 3  # of all of them
_ENOUGH_BLOCKS: Final = 8.0  # however many there are
_ONE_BLOCK: Final = 0.5  # of the variance; of 12 like blocks, the largest makes a quarter or so


@dataclass(frozen=True, slots=True)
class Estimate:
    """The value of one policy by one estimator, on logged states, of costs in ms.

    Attributes:
        policy: the policy that is valued.
        estimator: its name, obp's.
        value_ms: the estimate.
        se_ms: standard error by blocks, and by the prefix groups that span them; with the hyper-parameter given, whose
            bias is in the interval alone.
        ci95_ms: interval of 95 %.
        interval: of what it is an interval, and how it was made.
        lambda_: the hyper-parameter, where there is one.
        path: all hyper-parameters that SLOPE tried.
        notes: what a reader must know of it.
    """

    policy: str
    estimator: str
    value_ms: float
    se_ms: float
    ci95_ms: tuple[float, float]
    interval: str
    lambda_: float | None
    path: tuple[Tried, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields with the estimand beside them, ready for JSON."""
        return {**json_ready(asdict(self)), "estimand": ESTIMAND}


def estimate(
    rows: OneStepInput,
    policy: str,
    estimator: str,
    block: int | None = None,
    by: Estimator | None = None,
    same_requests: bool = False,
) -> Estimate:
    """Value a policy; costs are ms.

    Args:
        rows: logged decisions and what the policy would have done.
        policy: its name.
        estimator: name, as in `estimators`.
        block: consecutive requests that count as one; None: `block_of`.
        by: the estimator, if it is not the one of that name.
        same_requests: whether the interval is for these very requests once more, as of a benchmark, and not for other
            traffic like them.

    Raises:
        DataError: the log lacks what the estimator needs, such as prompt lengths for `same_requests`, or only one block
            has decisions that the policy shares.
        ConfigError: no such estimator, or a block that does not fit.
    """
    block = block_of(rows.log.decisions) if block is None else block
    valued = (by or _named(estimator, block))(rows)
    found = _interval(valued, rows, block, same_requests)
    few = _few(rows, estimator, block)
    return Estimate(
        policy=policy,
        estimator=estimator,
        value_ms=valued.value,
        se_ms=float(found.se or 0.0),
        ci95_ms=(found.lower, found.upper),
        interval=f"{found.estimand}: {found.method}",
        lambda_=valued.lambda_,
        path=valued.path,
        notes=(*valued.notes, *_burst((valued.whole or valued).influence, block), *few, *_jams(rows, block)),
    )


def _named(estimator: str, block: int) -> Estimator:
    known = estimators(block)
    if estimator not in known:
        raise ConfigError(f"estimator {estimator!r} is not known; expected one of {', '.join(known)}")
    return known[estimator]


def _interval(valued: Valued, rows: OneStepInput, block: int, same_requests: bool) -> Interval:
    """Return the interval of a value; of a λ that SLOPE chose, from end to end of it and of that of whole weights.

    SLOPE tolerates a bias of a few standard errors: with exact propensities and a model 10 % high, intervals of the
    chosen λ alone held 23 to 43 % of the time (`tuned_coverage`).
    """
    found = _of(valued, rows, block, same_requests)
    if valued.whole is None:
        return found
    whole = _of(valued.whole, rows, block, same_requests)
    return replace(
        found,
        lower=min(found.lower, whole.lower),
        upper=max(found.upper, whole.upper),
        method=f"{found.method}, reaching over that of whole weights where SLOPE shrank them",
    )


def _of(valued: Valued, rows: OneStepInput, block: int, same_requests: bool) -> Interval:
    if not same_requests:
        return linearised_interval(valued.value, valued.influence, block, shared=rows.log.shared)
    if rows.log.shared is None:
        raise DataError("the log holds no prompt lengths; expected those of all requests, for an interval of the same")
    return same_requests_interval(valued.value, valued.influence, rows.log.shared, block)


def _few(rows: OneStepInput, estimator: str, block: int) -> list[str]:
    """Say so where few blocks have the policy's weight: a ratio errs with these alone, and t counts all of them.

    Of 12 blocks of a log, of which six have it, intervals of snipw at 95 % held 92 % of the time; of two, 64 %.
    """
    if not estimator.endswith(_RATIOS):
        return []
    in_blocks = block_sums(weights(rows), block)
    if np.count_nonzero(in_blocks) == 1:  # which is the ratio, and has no error left
        raise DataError(
            f"all decisions that the policy shares are in one of {len(in_blocks)} blocks, so how far off {estimator} "
            "is cannot be told; use dm, or log a policy that explores all the time"
        )
    seen = effective_size(in_blocks)
    if seen > min(_FEW_BLOCKS * len(in_blocks), _ENOUGH_BLOCKS):
        return []
    return [
        f"the policy's weight lies on few blocks, like {seen:.1f} of {len(in_blocks)}: the interval is too narrow; log "
        "a policy that explores all the time"
    ]


def _burst(influence: Floats, block: int) -> list[str]:
    """Say so where one block decides how sure the value seems: of such traffic the log has seen one case.

    The interval of such a log is wide, and holds more often than that of a log which the burst happened to miss.
    """
    squares = block_sums(influence - influence.mean(), block) ** 2
    share = float(squares.max() / squares.sum()) if squares.any() else 0.0
    if share <= _ONE_BLOCK:
        return []
    one = f"one of {len(squares)} blocks makes more than half of the variance"
    return [f"{one}: how often the like comes is not known; log more"]


def _jams(rows: OneStepInput, block: int) -> list[str]:
    """Say so where the log is near overload, unless decisions one by one claim the value along its own path alone."""
    return near_overload(requests_worth(rows)) if block > 1 else []
