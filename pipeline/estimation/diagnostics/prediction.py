"""The model on the logged choices: where it is off, and how much that matters where the policy would go."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError, DataError
from lodestar.pipeline.estimation.blocks import block_se, blocks_in
from lodestar.pipeline.estimation.diagnostics.groups import Groups
from lodestar.pipeline.estimation.intervals.linearised import t_quantile
from lodestar.pipeline.estimation.one_step import OneStepInput, residuals, weights

__all__ = ["Coverage", "Prediction", "Residual", "coverage", "miscalibrated", "prediction"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_BINS: Final = 10
_NOTEWORTHY: Final = 0.05  # by which a covered share is off
_BY_LUCK: Final = 0.005  # chance that any of a log's groups is called off


@dataclass(frozen=True, slots=True)
class Residual:
    """Measured minus predicted cost of some decisions, in the unit of the cost.

    Attributes:
        group: such as 'prediction 10' (the tenth of the longest) or 'load 2'.
        decisions: how many.
        predicted: mean.
        bias: measured minus predicted, mean.
        bias_se: its block standard error; NaN where the group has rows in fewer than five blocks.
        mae: mean absolute error.
    """

    group: str
    decisions: int
    predicted: float
    bias: float
    bias_se: float
    mae: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """How well the model foretells the logged choices.

    Attributes:
        bias: measured minus predicted, mean over the logged choices.
        bias_se: its block standard error.
        mae: mean absolute error.
        correction: mean of weight × residual: what dr adds to dm, the model's bias where the policy would go.
        correction_se: its block standard error.
        residuals: by tenths of the prediction, then by every bucket.
    """

    bias: float
    bias_se: float
    mae: float
    correction: float
    correction_se: float
    residuals: tuple[Residual, ...]


@dataclass(frozen=True, slots=True)
class Coverage:
    """How often the cost stays below what was foretold that it would.

    Attributes:
        group: 'all decisions' or a bucket.
        decisions: how many.
        quantile: expected share.
        covered_ratio: found share.
        se: its block standard error; NaN where the group has rows in fewer than five blocks.
        pinball: mean of max(q (y − f), (q − 1) (y − f)), f what was foretold, in the unit of the cost; less is better.
    """

    group: str
    decisions: int
    quantile: float
    covered_ratio: float
    se: float
    pinball: float


def prediction(rows: OneStepInput, block: int, buckets: Mapping[str, Ints]) -> Prediction:
    """Measure the residuals of the logged choices.

    Args:
        rows: logged decisions with predictions.
        block: consecutive requests that count as one.
        buckets: name → bucket of each decision, 0 or more, shape (n,).

    >>> from lodestar.pipeline.estimation.logged import LoggedDecisions
    >>> log = LoggedDecisions(np.array([2.0, 4.0]), np.array([0, 1, 2]), np.array([0, 1]), np.ones(2))
    >>> found = prediction(OneStepInput(log, np.ones(2), np.array([1.0, 4.0])), 1, {})
    >>> found.bias, found.mae, found.correction
    (0.5, 0.5, 0.5)
    """
    residual, w = residuals(rows), weights(rows)
    predicted = rows.log.cost - residual
    cuts = np.quantile(predicted, np.arange(1, _BINS) / _BINS)
    tenth = 1 + np.searchsorted(cuts, predicted, side="left")
    blocks = blocks_in(len(w), block)
    labelled = {"prediction": tenth, **buckets}
    return Prediction(
        bias=float(residual.mean()),
        bias_se=block_se(residual, block),
        mae=float(np.abs(residual).mean()),
        correction=float(np.mean(w * residual)),
        correction_se=block_se(w * residual, block),
        residuals=tuple(
            each for name, label in labelled.items() for each in _by(name, label, residual, predicted, blocks)
        ),
    )


def coverage(
    cost: Floats, quantiles: Mapping[float, Floats], block: int, buckets: Mapping[str, Ints]
) -> tuple[Coverage, ...]:
    """Count how often the cost is at most its foretold quantile, of all decisions and of every bucket.

    Over several shares this is the distribution of the probability integral transform, whose P(F̂(y) ≤ q) is q.

    Args:
        cost: measured, shape (n,).
        quantiles: share, such as 0.9 → that quantile as foretold for the logged choice, shape (n,).
        block: consecutive requests that count as one.
        buckets: name → bucket of each decision, 0 or more, shape (n,).

    >>> found = coverage(np.array([1.0, 2.0, 3.0, 4.0]), {0.9: np.full(4, 3.5)}, 2, {})
    >>> found[0].group, found[0].covered_ratio
    ('all decisions', 0.75)
    """
    blocks = blocks_in(len(cost), block)
    found = []
    for quantile, foretold in quantiles.items():
        if not 0 < quantile < 1:
            raise ConfigError(f"quantile {quantile:g} is foretold; expected a share between 0 and 1, such as 0.9")
        if foretold.shape != cost.shape or not np.isfinite(foretold).all():
            raise DataError(
                f"quantile {quantile:g} is foretold with shape {foretold.shape}; expected {cost.shape}, all finite"
            )
        covered = (cost <= foretold).astype(np.float64)
        pinball = (quantile - 1 + (cost > foretold)) * (cost - foretold)
        every = Groups.one(len(cost), blocks)
        whole = float(covered.mean()), float(_error(every, covered)[0]), float(pinball.mean())
        found.append(Coverage("all decisions", len(cost), quantile, *whole))
        for name, label in buckets.items():
            groups = Groups.of(label, blocks)
            shares, losses = (groups.sums(values) / groups.rows for values in (covered, pinball))
            columns = (groups.labels, groups.rows, shares, _error(groups, covered), losses)
            for of, rows, share, se, loss in zip(*(column.tolist() for column in columns), strict=True):
                found.append(Coverage(f"{name} {of}", rows, quantile, share, se, loss))
    return tuple(found)


def miscalibrated(found: Sequence[Coverage], block_count: int) -> str | None:
    """Say where the cost stays below a foretold quantile more or less often than it should, or None.

    Told is, of the groups that are off by 5 points or more, the one that is furthest off in standard errors, if that is
    more than luck (0.5 % for all groups together, by Bonferroni, Student's t of the blocks).

    Args:
        found: of one log.
        block_count: blocks that the standard errors are of.

    >>> busy = Coverage("load 3", 600, 0.9, covered_ratio=0.7, se=0.02, pinball=9.0)
    >>> miscalibrated([busy], block_count=12)
    'the predictor is miscalibrated: at load 3 70 % of the costs are below their foretold P90, 10.0 standard errors off'
    """
    tested = [each for each in found if not math.isnan(each.se)]
    noteworthy = [each for each in tested if abs(each.covered_ratio - each.quantile) >= _NOTEWORTHY]
    if not noteworthy:
        return None
    worst = max(noteworthy, key=_errors_off)
    z, far = _errors_off(worst), t_quantile(block_count, 1 - _BY_LUCK / len(tested))
    if z <= far:
        return None
    return (
        f"the predictor is miscalibrated: at {worst.group} {100 * worst.covered_ratio:.0f} % of the costs are below "
        f"their foretold P{100 * worst.quantile:g}, {z:.1f} standard errors off"
    )


def _errors_off(found: Coverage) -> float:
    """Return how many standard errors a share is off, of single decisions at least: few blocks may agree by luck."""
    single = math.sqrt(found.quantile * (1 - found.quantile) / found.decisions)
    return abs(found.covered_ratio - found.quantile) / max(found.se, single)


def _by(name: str, label: Ints, residual: Floats, predicted: Floats, blocks: int) -> Iterator[Residual]:
    groups = Groups.of(label, blocks)
    means = [groups.sums(values) / groups.rows for values in (predicted, residual, np.abs(residual))]
    columns = (groups.labels, groups.rows, means[0], means[1], _error(groups, residual), means[2])
    for of, rows, mean, bias, se, mae in zip(*(column.tolist() for column in columns), strict=True):
        yield Residual(f"{name} {of}", rows, mean, bias, se, mae)


def _error(groups: Groups, values: Floats) -> Floats:
    """Return the standard error of each group's mean, by blocks of its own rows."""
    values = values - (groups.sums(values) / groups.rows)[groups.place]
    return np.asarray(np.sqrt(groups.block_variance(groups.block_sums(values))) / groups.rows)
