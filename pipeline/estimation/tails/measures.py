"""Quantiles, the mean beyond them and the share within a limit: by three estimators, each with its interval or refusal.

Estimand: *one-step, logged states*: the distribution of the cost of ONE decision by the policy, all others as logged.

Intervals of 95 % are by blocks. That of a quantile reads the CDF at q ± its error there (Woodruff 1952), downwards the
error just below it, which is another one where many requests share a cost; the share within a limit, a mean of an
indicator, has an ordinary one. It says the same as a quantile and behaves better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from scipy.special import betaincinv

from lodestar.data.errors import ConfigError, DataError
from lodestar.pipeline.estimation.blocks import blocks_in
from lodestar.pipeline.estimation.one_step import ESTIMAND, OneStepInput
from lodestar.pipeline.estimation.tails.cdf import GridCdf, cost_grid
from lodestar.pipeline.estimation.tails.conditional import Conditional, on_grid
from lodestar.pipeline.estimation.tails.direct import direct_cdf
from lodestar.pipeline.estimation.tails.doubly_robust import doubly_robust_cdf
from lodestar.pipeline.estimation.tails.heads import QuantileHeads, heads_cdf
from lodestar.pipeline.estimation.tails.residuals import residual_cdf
from lodestar.pipeline.estimation.tails.support import LEAST_ESS, LEAST_TAIL_ESS, Support, support_of
from lodestar.pipeline.estimation.tails.weighted import WeightedCdf, weighted_cdf

__all__ = ["TailEstimate", "tail_measures"]

_BEYOND: Final = 0.9  # from which level on the mean of the tail is told
_UNSEEN: Final = 0.5  # of a tail; more that may lie where the log never went, and less of it is seen than not
_ONLY_MODEL: Final = "only the model speaks: the interval does not show how wrong it may be"


@dataclass(frozen=True, slots=True)
class TailEstimate:
    """One measure of a policy's costs by one estimator.

    Attributes:
        measure: "p99", the quantile at 0.99; "cvar99", the mean beyond it; "slo", the share of costs at or below the
            limit, 0 to 1.
        estimator: snipw, dm or dr, of the CDF.
        value: in the unit of the cost, or a share; None where refused, as are `low` and `high`.
        low: end of the 95 % interval.
        high: end of the 95 % interval.
        ess: effective sample size of the weights; None for dm, which has none.
        tail_ess: the same of the decisions beyond the quantile, or beyond the limit; None for dm.
        refused: why there is no number, and what would help; None where there is one.
        notes: what a reader must know of it, sentences without a full stop.
    """

    measure: str
    estimator: str
    value: float | None
    low: float | None
    high: float | None
    ess: float | None
    tail_ess: float | None
    refused: str | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Return the fields with the estimand beside them, ready for JSON."""
        return {**asdict(self), "notes": list(self.notes), "estimand": ESTIMAND}


def tail_measures(
    rows: OneStepInput,
    block: int,
    slo: float | None = None,
    levels: Sequence[float] = (0.5, 0.9, 0.99),
    heads: QuantileHeads | None = None,
) -> list[TailEstimate]:
    """Estimate quantiles, the mean beyond those from 0.9 on, and the share within a limit.

    Args:
        rows: logged decisions, what the policy would have done, and predictions; without these only snipw speaks.
        block: consecutive decisions that count as one, two blocks at least.
        slo: limit in the unit of the cost; None: no such measure.
        levels: of the quantiles, in (0, 1).
        heads: predicted quantiles of every candidate, to use in place of residuals of `rows.predicted`.

    >>> import numpy as np
    >>> from lodestar.pipeline.estimation.logged import LoggedDecisions
    >>> random = np.random.default_rng(0)
    >>> log = LoggedDecisions(random.exponential(100, 4000), np.arange(4001), np.arange(4000), np.ones(4000))
    >>> rows = OneStepInput(log, np.ones(4000), np.full(4000, 100.0))
    >>> for found in tail_measures(rows, block=100, slo=200.0, levels=(0.9, 0.999)):
    ...     if found.estimator == "snipw":
    ...         print(found.measure, "refused" if found.value is None else f"{found.low:.3g} to {found.high:.3g}")
    p90 227 to 246
    p99.9 refused
    cvar90 327 to 356
    cvar99.9 refused
    slo 0.852 to 0.875
    """
    for level in levels:
        if not 0 < level < 1:
            raise ConfigError(f"level {level:g} is no level of a quantile; expected 0 to 1, such as 0.99")
    if slo is not None and not 0 < slo < math.inf:
        raise ConfigError(f"slo {slo:g} is not usable; expected a cost above 0")
    support = support_of(rows, block)
    asked = [_Asked("p", level) for level in levels] + [_Asked("cvar", level) for level in levels if level >= _BEYOND]
    asked += [] if slo is None else [_Asked("slo", slo)]
    cdfs = _cdfs(rows, block, slo, heads, support)
    return [_estimate(each, estimator, cdf, support) for estimator, cdf in cdfs.items() for each in asked]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A measure: its kind, and its level or limit."""

    kind: str
    at: float

    @property
    def name(self) -> str:
        return self.kind if self.kind == "slo" else f"{self.kind}{100 * self.at:g}"


@dataclass(frozen=True, slots=True)
class _Known:
    """A CDF and the highest level that it can carry."""

    cdf: WeightedCdf | GridCdf
    highest: float = 1.0


def _cdfs(
    rows: OneStepInput, block: int, slo: float | None, heads: QuantileHeads | None, support: Support
) -> dict[str, _Known | str]:
    """Return the CDF by every estimator, or why it has none."""
    few = (
        f"under this policy the log weighs like {support.ess:.0f} requests, fewer than {LEAST_ESS:.0f}; only dm, the "
        "model, can speak. Log more, or a policy that explores towards this one"
    )
    weighty = support.ess >= LEAST_ESS
    found: dict[str, _Known | str] = {"snipw": _Known(weighted_cdf(rows, block)) if weighty else few}
    try:
        model = _conditional(rows, block, heads)
        on = on_grid(model, cost_grid(rows.log.cost, model.top, slo))
        found["dm"] = _Known(direct_cdf(rows, on, block), model.highest)
        found["dr"] = _Known(doubly_robust_cdf(rows, on, block)) if weighty else few
    except DataError as error:
        found["dm"], found["dr"] = str(error), str(error) if weighty else few
    return found


def _conditional(rows: OneStepInput, block: int, heads: QuantileHeads | None) -> Conditional:
    if not (rows.log.cost > 0).all():
        raise DataError(f"the least cost is {rows.log.cost.min():g}; expected costs above 0, which have a logarithm")
    if heads is None:
        model = residual_cdf(rows, block)
        if model.fewest <= LEAST_TAIL_ESS:
            raise DataError(
                f"the model has {model.fewest} residuals of other times to tell a distribution by; expected more than "
                f"{LEAST_TAIL_ESS:.0f}: log more requests"
            )
        return model
    return heads_cdf(heads, rows.log.candidates, blocks_in(rows.log.decisions, block))


def _estimate(asked: _Asked, estimator: str, known: _Known | str, support: Support) -> TailEstimate:
    weighs = estimator != "dm"
    ess = support.ess if weighs else None
    if isinstance(known, str):
        return TailEstimate(asked.name, estimator, None, None, None, ess, None, known)
    cdf = known.cdf
    start = asked.at if asked.kind == "slo" else cdf.quantile(asked.at)
    tail_ess = support.beyond(start) if weighs else None
    notes = () if weighs else (_ONLY_MODEL,)
    if asked.kind == "slo":
        value, low, high, more = _share(cdf, asked.at, support, weighs)
        return TailEstimate("slo", estimator, value, low, high, ess, tail_ess, None, notes + more)
    refused = _refusal(asked, known, tail_ess, support)
    half, below = support.errors * cdf.level_error(start), support.errors * cdf.error_below(start)
    if refused is None and asked.at + half >= 1:
        refused = (
            f"the interval of {asked.name} has no upper end: the share beyond it is known to ±{half:.2g} only; "
            "log more, or ask for a lower quantile or an SLO"
        )
    if refused is not None:
        return TailEstimate(asked.name, estimator, None, None, None, ess, tail_ess, refused, notes)
    if asked.kind == "cvar":
        value, error = cdf.beyond(asked.at)
        low, high = value - support.errors * error, value + support.errors * error
    else:
        value, low, high = start, cdf.quantile(max(asked.at - below, 0.0)), cdf.quantile(asked.at + half)
    return TailEstimate(asked.name, estimator, value, low, high, ess, tail_ess, None, notes)


def _refusal(asked: _Asked, known: _Known, tail_ess: float | None, support: Support) -> str | None:
    """Say why there is no number of a tail."""
    if asked.at > known.highest or (asked.kind == "cvar" and asked.at == known.highest):
        return (
            f"{asked.name} lies beyond {known.highest:.4g}, the highest level that the model's residuals or heads "
            "carry; log more, or ask for a lower quantile or an SLO"
        )
    if tail_ess is None or _tied(asked, known.cdf, support):
        return None
    if tail_ess < LEAST_TAIL_ESS:
        return (
            f"the log weighs like {tail_ess:.1f} requests beyond {asked.name} (tail ESS), fewer than "
            f"{LEAST_TAIL_ESS:.0f}; log more, or a policy that explores towards this one, or ask for a lower quantile "
            "or an SLO"
        )
    if support.unseen > (1 - asked.at) * _UNSEEN:
        return (
            f"the log hardly ever made {100 * support.unseen:.2g} % of the policy's decisions, and the tail beyond "
            f"{asked.name} may lie there; log a policy that explores towards this one, or ask for a lower quantile"
        )
    return None


def _tied(asked: _Asked, cdf: WeightedCdf | GridCdf, support: Support) -> bool:
    """Return whether a quantile surely lies among many requests of one cost, so that none beyond can move it.

    F at that cost then reaches the level even at the low end of its interval, all that is unseen taken as beyond.
    """
    start = cdf.quantile(asked.at)
    if asked.kind != "p" or support.at(start) < LEAST_TAIL_ESS:
        return False
    return _share(cdf, start, support, weighs=True)[1] >= asked.at


def _share(
    cdf: WeightedCdf | GridCdf, limit: float, support: Support, weighs: bool
) -> tuple[float, float, float, tuple[str, ...]]:
    """Return the share within a limit with its interval, wider where few requests are on one side or some unseen."""
    raw, error = cdf.share(limit)
    value = min(max(raw, 0.0), 1.0)
    low, high = raw - support.errors * error, raw + support.errors * error
    notes: tuple[str, ...] = ()
    if weighs and min(support.beyond(limit), support.within(limit)) < LEAST_TAIL_ESS:
        fewest, most = _binomial(value, support.ess)
        low, high = min(low, fewest), max(high, most)
        notes += ("few requests are on one side of the limit: the interval is at least the binomial one",)
    if weighs and support.unseen > 0:
        low, high = low - support.unseen, high + support.unseen
        rarely = f"the log hardly ever made {100 * support.unseen:.2g} % of the policy's decisions"
        notes += (f"{rarely}: the interval allows for what they may be",)
    return value, min(max(low, 0.0), value), max(min(high, 1.0), value), notes


def _binomial(share: float, size: float) -> tuple[float, float]:
    """Return the 95 % interval of a share of so many requests by Clopper and Pearson 1934."""
    met = share * size
    low = float(betaincinv(met, size - met + 1, 0.025)) if met > 0 else 0.0
    high = float(betaincinv(met + 1, size - met, 0.975)) if met < size else 1.0
    return low, high
