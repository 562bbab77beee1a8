"""The model on the logged choices: where it is off, and how much that matters where the policy would go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ConfigError, DataError
from lodestar.pipeline.estimation.blocks import block_se, blocks_in
from lodestar.pipeline.estimation.diagnostics.groups import Groups
from lodestar.pipeline.estimation.one_step import OneStepInput, residuals, weights

__all__ = ["Coverage", "Prediction", "Residual", "coverage", "prediction"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_BINS: Final = 10


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
        quantile: expected share.
        covered_ratio: found share.
        se: its block standard error; NaN where the group has rows in fewer than five blocks.
    """

    group: str
    quantile: float
    covered_ratio: float
    se: float


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
        every = Groups.one(len(cost), blocks)
        found.append(Coverage("all decisions", quantile, float(covered.mean()), float(_error(every, covered)[0])))
        for name, label in buckets.items():
            groups = Groups.of(label, blocks)
            share = groups.sums(covered) / groups.rows
            for label_, ratio, se in zip(groups.labels, share.tolist(), _error(groups, covered).tolist(), strict=True):
                found.append(Coverage(f"{name} {label_}", quantile, ratio, se))
    return tuple(found)


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
