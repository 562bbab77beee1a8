"""Balance: whether weights add up to what the policy gives each instance, and to 1 at any load and any time.

With right propensities E[w·1{chosen is a}] = E[π(a|x)] for every candidate, so the weight found on an instance is the
probability that the policy gave it; and E[w | x] = 1, so the mean weight is 1 in every bucket of what was known before
the choice. It is NOT 1 among the requests that one instance served: those were chosen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.pipeline.estimation.diagnostics.groups import DRAW_BLOCKS, Groups
from lodestar.pipeline.estimation.diagnostics.mean_zero import Family, Sums, family
from lodestar.pipeline.estimation.diagnostics.support import Expected
from lodestar.pipeline.estimation.logged import LoggedDecisions

__all__ = ["bucket_balance", "instance_balance"]

Ints = NDArray[np.int64]


def instance_balance(log: LoggedDecisions, expected: Expected, of: Groups) -> Family:
    """Test Σ w·1{chosen is on j} = Σ π(j|x) for every instance j.

    Where all logging probabilities are known, candidates that the log never chooses are left out of the right side.

    Args:
        log: the decisions.
        expected: weights, found and expected.
        of: candidates by their instance.
    """
    terms = -expected.target
    terms[log.chosen] += expected.weight
    variance = None if expected.squares is None else of.sums(expected.squares) - of.sums(expected.target**2)
    names = [f"instance {j}" for j in of.labels]
    return family("weight by instance", names, Sums.of(of, terms, expected.target, variance), of.blocks)


def bucket_balance(expected: Expected, name: str, bucket: Ints) -> Family:
    """Test that the mean weight is 1 in every bucket of what was known before the choice.

    Args:
        expected: weights, found and expected.
        name: of what the buckets tell apart, such as 'load'.
        bucket: of each decision, 0 or more, shape (n,); it may depend on all candidates, not on the chosen one.

    >>> w = np.tile([1.3, 0.9], 500) + np.tile([-0.1, -0.1, 0.1, 0.1], 250)
    >>> found = bucket_balance(Expected(w, np.ones(1000), np.ones(1000), None, None), "load", np.arange(1000) % 2)
    >>> found.fails, found.worst.name, round(found.worst.off, 2)
    (True, 'load 0', 0.3)
    """
    if bucket.shape != expected.mass.shape or (bucket < 0).any():
        raise DataError(
            f"bucket {name!r} has shape {bucket.shape}; expected {expected.mass.shape}, a number of 0 or more each"
        )
    groups = Groups.of(bucket, DRAW_BLOCKS)
    known = None if expected.variance is None else groups.sums(expected.variance)
    names = [f"{name} {label}" for label in groups.labels]
    return family(f"weight by {name}", names, Sums.of(groups, expected.surplus, expected.mass, known), DRAW_BLOCKS)
