"""Control variates: what has mean 0 for right propensities, as a test and to take noise out of an estimate.

E[(w − 1) f(x)] = 0 for every f of what was known before the choice: the load, the hour, what the model says of the
policy. f must not look at the candidate that was chosen, nor at what came of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.estimation.diagnostics.groups import DRAW_BLOCKS, Groups
from lodestar.pipeline.estimation.diagnostics.mean_zero import Family, Sums, family
from lodestar.pipeline.estimation.diagnostics.support import Expected, expected_weights
from lodestar.pipeline.estimation.one_step import OneStepInput, Valued

__all__ = ["contexts", "control_variates", "controlled"]

Floats = NDArray[np.float64]

_SAME: Final = 1e-6  # weights as near to 1 are those of the logging policy itself, but for rounding


def contexts(rows: OneStepInput) -> dict[str, Floats]:
    """Return what is tried as f, by name, each of mean 0 and variance 1, shape (n,); none that does not vary.

    The hour, the number of candidates, how sure policy and log are, what the model says of policy and log (where there
    is a model), and the mean over the candidates of every feature (where there are features).
    """
    log = rows.log
    found = {
        "time": np.arange(log.decisions, dtype=np.float64),
        "number of candidates": log.counts.astype(np.float64),
        "sureness of the policy": log.sums(rows.target**2),
    }
    if log.logging is not None:
        found["sureness of the log"] = log.sums(log.logging**2)
    if rows.predicted is not None:
        predicted = _filled(rows.predicted)
        found["direct value of the policy"] = log.sums(rows.target * predicted)
        if log.logging is not None:
            found["direct value of the log"] = log.sums(log.logging * predicted)
    if rows.features is not None:
        for k in range(rows.features.shape[1]):
            found[f"feature {k}"] = log.sums(_filled(rows.features[:, k])) / log.counts
    return {name: f for name, raw in found.items() if (f := _standardised(raw)) is not None}


def control_variates(rows: OneStepInput, expected: Expected) -> Family:
    """Test E[(w − 1) f(x)] = 0 for every f of `contexts`; `off` of a test is the mean, f having variance 1.

    Args:
        rows: logged decisions and what the policy would have done.
        expected: weights of the same rows, found and expected.
    """
    fs, surplus, v = contexts(rows), expected.surplus, expected.variance
    if not fs:
        return Family("weight by context", (), signed=False)
    groups, ones = Groups.one(len(surplus), DRAW_BLOCKS), np.ones(len(surplus))
    parts = [
        Sums.of(groups, f * surplus, ones, None if v is None else np.sum(f**2 * v, keepdims=True)) for f in fs.values()
    ]
    return replace(family("weight by context", list(fs), Sums.joined(parts), DRAW_BLOCKS), signed=False)


def controlled(valued: Valued, rows: OneStepInput) -> Valued:
    """Take out of an estimate what its control variates explain of its error.

    Formula: V − β·mean(z), with z = (w − 1)·(1, f) and β the least-squares fit of the influence on z. It has the same
    expectation but for a bias of the order of the number of f over n, and never a larger error where n is large. Use it
    where `control_variates` finds nothing: wrong propensities it would hide.
    Reference: Owen 2013, Monte Carlo theory, §8.9.

    Args:
        valued: an estimate from the same rows.
        rows: logged decisions and what the policy would have done.
    """
    surplus = expected_weights(rows).surplus
    if np.abs(surplus).max() <= _SAME:
        return valued
    z = np.stack([surplus, *(f * surplus for f in contexts(rows).values())], axis=1)
    centred = z - z.mean(axis=0)
    beta = np.linalg.lstsq(centred.T @ centred, centred.T @ (valued.influence - valued.influence.mean()), rcond=None)[0]
    value = valued.value - float(z.mean(axis=0) @ beta)
    return replace(valued, value=value, influence=valued.influence - z @ beta)


def _filled(values: Floats) -> Floats:
    """Put the mean where nothing is known: any function of the context will do."""
    known = np.isfinite(values)
    return values if known.all() else np.where(known, values, values[known].mean() if known.any() else 0.0)


def _standardised(f: Floats) -> Floats | None:
    spread = float(f.std())
    return None if spread <= 1e-9 * max(1.0, float(np.abs(f).max())) else (f - f.mean()) / spread
