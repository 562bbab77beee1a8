"""Whether a model puts the candidates of a decision in the right order, from logs that know one outcome a decision.

A model decides by the order of its predictions within a decision, and by nothing else. So all that is added to the
predictions of all candidates of a decision leaves every figure here as it is:

- **SNIPS** (self-normalised importance sampling; Swaminathan and Joachims 2015) of "take the candidate with the lowest
  prediction": ``V = sum(w y) / sum(w)`` with ``w = pi(chosen) / propensity``, relative to the logged mean of y. The
  estimand is *one-step, logged states*: ONE decision is the model's, and every queue and cache stays as logged. It is
  no forecast of what the model would do to the cluster; that is what a replay is for. ``ess = sum(w)² / sum(w²)``.
- **rank correlation**: Spearman's correlation of the chosen candidate's predicted place among the candidates (the share
  of the others that are predicted to be faster; half of those predicted alike) with its *measured surplus*.
- **cost correlation**: the same with the predicted milliseconds above the mean candidate of the decision.

The measured surplus is the residual of log latency from a reference that knows the request and the whole cluster but
not which candidate was chosen: ridge regression on the mean and the lowest value of every feature over the candidates,
fitted to the rows that are judged. It is the same for every model that is compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.models.evaluation.parts import estimate
from lodestar.models.evaluation.spearman import spearman_parts

__all__ = ["Choices", "pick_probability", "rank_parts", "ranking", "snips_parts"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MIN_DECISIONS: Final = 30
RIDGE: Final = 0.001  # share of each column's variance: keeps columns that rise and fall together from fighting


@dataclass(frozen=True, slots=True)
class Choices:
    """Decisions with at least two candidates, and what came of them, in time order.

    Attributes:
        features: of every candidate, shape (n, m, k); all NaN but the prompt where an instance was no candidate.
        candidate: whether instance j was a candidate, shape (n, m).
        chosen: instance index, shape (n,).
        latency_ms: that followed; of a request that was cut off the time until then, the least it can have been.
        propensity: of the choice, NaN where it is not known.
    """

    features: Floats
    candidate: NDArray[np.bool_]
    chosen: Ints
    latency_ms: Floats
    propensity: Floats

    def __len__(self) -> int:
        """Return the number of decisions."""
        return len(self.chosen)


def ranking(choices: Choices, predicted_ms: Floats, seed: int = 0) -> dict[str, Any]:
    """Judge predictions (n, m) of every candidate; figures with 95 % intervals, None where the log tells too little."""
    parts = rank_parts(choices, predicted_ms)
    figures: dict[str, Any] = {name: estimate(part, seed) for name, part in parts.items()}
    weights = pick_probability(choices, predicted_ms) / choices.propensity
    known = not np.isnan(weights).any() and bool(weights.any())
    return {
        "decisions": len(choices),
        "candidates": float(choices.candidate.sum(axis=1).mean()) if len(choices) else None,
        "agreement": float(pick_probability(choices, predicted_ms).mean()) if len(choices) else None,
        "ess": float(weights.sum() ** 2 / (weights**2).sum()) if known else None,
        "logged_ms": float(choices.latency_ms.mean()) if len(choices) else None,
        **figures,
    }


def rank_parts(choices: Choices, predicted_ms: Floats) -> dict[str, Floats]:
    """Return the parts (see `parts`) of 'snips', 'rank_correlation' and 'cost_correlation': NaN where not known."""
    if len(choices) < MIN_DECISIONS:
        return dict.fromkeys(("snips", "rank_correlation", "cost_correlation"), np.full(len(choices), np.nan))
    predicted_ms = np.where(choices.candidate, predicted_ms, np.nan)
    surplus = _surplus(choices)
    own = predicted_ms[np.arange(len(choices)), choices.chosen]
    return {
        "snips": snips_parts(choices, predicted_ms),
        "rank_correlation": spearman_parts(_place(predicted_ms, own), surplus),
        "cost_correlation": spearman_parts(own - np.nanmean(predicted_ms, axis=1), surplus),
    }


def pick_probability(choices: Choices, predicted_ms: Floats) -> Floats:
    """Return how likely "take the lowest prediction" makes each logged choice: 0, 1, or 1 / k of k that are equal."""
    scored = np.where(choices.candidate, predicted_ms, np.inf)
    lowest = scored == scored.min(axis=1, keepdims=True)
    return np.asarray(lowest[np.arange(len(choices)), choices.chosen] / lowest.sum(axis=1))


def snips_parts(choices: Choices, predicted_ms: Floats) -> Floats:
    """Return the parts of V / (logged mean) - 1: below 0, the model's picks are faster than the logged ones."""
    weight, y = pick_probability(choices, predicted_ms) / choices.propensity, choices.latency_ms
    if np.isnan(weight).any() or not weight.any():
        return np.full(len(y), np.nan)
    logged_ms, value_ms = float(y.mean()), float((weight * y).sum() / weight.sum())
    influence = weight / weight.mean() * (y - value_ms) / logged_ms - value_ms * (y - logged_ms) / logged_ms**2
    return np.asarray(value_ms / logged_ms - 1.0 + influence)


def _place(predicted_ms: Floats, own: Floats) -> Floats:
    """Return the share of the other candidates that are predicted to be faster than the chosen one."""
    below, equal = (predicted_ms < own[:, None]).sum(axis=1), (predicted_ms == own[:, None]).sum(axis=1) - 1
    return np.asarray((below + 0.5 * equal) / (np.isfinite(predicted_ms).sum(axis=1) - 1))


def _surplus(choices: Choices) -> Floats:
    """Return the residual of log latency from the reference that ignores which candidate was chosen."""
    masked = np.where(choices.candidate[:, :, None], choices.features, np.nan)
    known = masked[:, :, ~np.isnan(masked).all(axis=(0, 1))]
    lowest = np.nanmin(np.where(np.isnan(known), np.inf, known), axis=1)
    absent = np.isnan(known).all(axis=1)
    total, present = np.nansum(known, axis=1), (~np.isnan(known)).sum(axis=1)
    mean = np.divide(total, present, out=np.full(total.shape, np.nan), where=~absent)
    columns = np.column_stack([mean, np.where(absent, np.nan, lowest)])
    centred = columns - np.nanmean(columns, axis=0)
    spread = np.nanstd(columns, axis=0)
    design = np.nan_to_num(centred[:, spread > 1e-9] / spread[spread > 1e-9])  # a missing value counts as the mean
    log_ms = np.log(choices.latency_ms)
    y = log_ms - log_ms.mean()
    penalty = RIDGE * len(y) * np.eye(design.shape[1])
    return np.asarray(y - design @ np.linalg.solve(design.T @ design + penalty, design.T @ y))
