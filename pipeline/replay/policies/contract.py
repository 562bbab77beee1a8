"""What a policy is: from one request and one snapshot to the probability of every candidate."""

from __future__ import annotations

from typing import ClassVar, NamedTuple, Protocol

import numba
import numpy as np
from numpy.typing import NDArray

from lodestar.data.jit import jit_as, jit_inner
from lodestar.models.scorer import Scorer

__all__ = [
    "PROBABILITIES",
    "Parameters",
    "Policy",
    "allocating_policy_function",
    "is_candidate",
    "policy_function",
    "probabilities",
    "spread",
]

Floats = NDArray[np.float64]


class Parameters(NamedTuple):
    """A policy's settings as compiled code reads them.

    Attributes:
        values: the policy's own numbers.
        scorer: the latency model, for policies that have one.
    """

    values: Floats
    scorer: Scorer

    @classmethod
    def of(cls, *values: float, scorer: Scorer | None = None) -> Parameters:
        """Pack numbers and perhaps a model."""
        return cls(np.array(values, dtype=np.float64), _no_scorer() if scorer is None else scorer)


def _no_scorer() -> Scorer:
    """Make a scorer without trees, of the type that compiled code expects."""
    ints, floats = np.zeros(0, dtype=np.int64), np.zeros(0)
    bools, bits = np.zeros(0, dtype=np.bool_), np.zeros(0, dtype=np.uint64)
    return Scorer(
        node_start=ints,
        threshold=floats,
        nan_left=bools,
        zero_left=bools,
        zero_missing=bools,
        tree=bits,
        keep=bits,
        leaf_start=ints,
        leaf=floats,
        bit_position=ints,
        first=ints,
        second=ints,
        coefficient_ms=floats,
        floor_ms=0.0,
        mean_ratio=1.0,
    )


class Rule(Protocol):
    """The compiled rule of a policy."""

    def __call__(self, prompt_tokens: float, snapshot: Floats, parameters: Parameters, probability: Floats) -> None:
        """Fill `probability` (m,) from the snapshot (m, len(SNAPSHOT_FIELDS)); a row of NaN is no candidate."""


class Policy(Protocol):
    """One file, one class: settings as fields, the rule as a compiled function.

    The same rule replays, scores logged decisions and serves. It keeps no state of its own and draws no random
    numbers: it says how likely each candidate is, and the caller draws.
    """

    name: ClassVar[str]
    #: Snapshot fields without which the rule can't decide.
    fields: ClassVar[tuple[str, ...]]

    @property
    def rule(self) -> Rule:
        """Return the compiled rule."""

    def parameters(self) -> Parameters:
        """Return the settings for the rule."""


_MATRIX = numba.types.Array(numba.float64, 2, "C")
_VECTOR = numba.types.Array(numba.float64, 1, "C")
#: The one signature of all rules, so that a kernel compiled once takes any of them.
PROBABILITIES = numba.void(numba.float64, _MATRIX, numba.typeof(Parameters.of()), _VECTOR)
policy_function = jit_as(PROBABILITIES, allocates=False)
#: For rules that make arrays of their own.
allocating_policy_function = jit_as(PROBABILITIES)


@jit_inner
def is_candidate(snapshot: Floats, j: int) -> bool:
    """Say whether row j of a snapshot is a candidate: one about which something is known."""
    for k in range(snapshot.shape[1]):  # noqa: SIM110 - compiled code takes no generators here
        if snapshot[j, k] == snapshot[j, k]:
            return True
    return False


@jit_inner
def spread(probability: Floats) -> None:
    """Turn marks (1 for every candidate among the best) into equal probabilities, as a random tie-break does."""
    total = 0.0
    for j in range(len(probability)):
        total += probability[j]
    for j in range(len(probability)):
        probability[j] /= total


def probabilities(policy: Policy, prompt_tokens: Floats, snapshots: Floats) -> Floats:
    """Return the probability a policy gives every candidate of logged decisions, shape (n, m).

    `snapshots` has shape (n, m, len(SNAPSHOT_FIELDS)), with rows of NaN for instances that were no candidates.
    """
    out = np.zeros(snapshots.shape[:2])
    parameters, rule = policy.parameters(), policy.rule
    for i in range(len(snapshots)):
        rule(prompt_tokens[i], snapshots[i], parameters, out[i])
    return out
