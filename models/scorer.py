"""Trees and baseline as flat arrays, scored by compiled code: what the replay kernel and the router run per decision.

The trees are evaluated as QuickScorer does it (Lucchese et al., SIGIR 2015): nodes are sorted by feature and
threshold, every leaf of a tree is a bit, and a node whose condition fails clears the bits of the leaves on its left;
the lowest bit left is the leaf reached. No branch depends on the shape of a tree.

A feature's nodes fail from the lowest threshold up to the first that holds, so what they leave is known beforehand:
the scorer keeps it for every `STRIDE` nodes, for a missing value and for a zero that counts as missing. For every
feature a row then takes one AND over all trees, which a processor does several at a time, and fewer than `STRIDE`
nodes one by one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ArtifactError
from lodestar.data.jit import jit, jit_part
from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.baseline import Baseline, baseline_ms
from lodestar.models.textmodel import Tree, parse_trees

if TYPE_CHECKING:
    from lodestar.models.latency import LatencyModel

__all__ = ["MAX_LEAVES", "Scorer", "flatten", "no_scorer", "score", "score_in", "scorer_of"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bits = NDArray[np.uint64]

MAX_LEAVES: Final = 64  # one bit each
STRIDE: Final = 32  # 16 and 64 were no faster on 100 trees of 15 leaves, 300 of 31 and 300 of 63

_DE_BRUIJN = 0x03F79D71B4CB0A89  # its 64 six-bit windows are all different, so one names the position of a lone bit
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_MAGIC = np.uint64(_DE_BRUIJN)
_SHIFT = np.uint64(58)
_ZERO = float(np.float32(1e-35))  # LightGBM reads values up to this as zero
_ONE = np.uint64(1)


class Scorer(NamedTuple):
    """One sum of trees over a baseline, flattened; nodes are ordered by feature, then threshold.

    A *state* holds a number of 64 bits for every tree: the leaves still possible.

    Attributes:
        node_start: nodes of feature column f are ``node_start[f]`` up to ``node_start[f + 1]``.
        threshold: a row goes left where its feature is at most this.
        tree: tree of the node (unsigned, so that indexing with it needs no test for a negative).
        keep: bits of the leaves that stay possible when the row goes right.
        states: shape (states, trees).
        passed: per feature column, the state after its first `STRIDE` nodes failed; the next ones follow it.
        missing: per feature column with nodes, the state that a missing value leaves.
        zero: per feature column, the state that a zero leaves if any node takes it as missing; else -1.
        leaf_start: first leaf of every tree.
        leaf: leaf values, on the log scale, from left to right.
        bit_position: de Bruijn window → position of the bit.
        first: first factor of each baseline term (column), -1 for none.
        second: second factor.
        coefficient_ms: of each baseline term.
        floor_ms: lowest baseline.
        ceiling_ms: highest baseline; infinity where it has none.
        mean_ratio: the factor that makes predictions right in the mean.
    """

    node_start: Ints
    threshold: Floats
    tree: Bits
    keep: Bits
    states: NDArray[np.uint64]
    passed: Ints
    missing: Ints
    zero: Ints
    leaf_start: Ints
    leaf: Floats
    bit_position: Ints
    first: Ints
    second: Ints
    coefficient_ms: Floats
    floor_ms: float
    ceiling_ms: float
    mean_ratio: float


@jit_part
def _leave(state: Bits, possible: Bits) -> None:
    for t in range(state.shape[0]):
        possible[t] &= state[t]


@jit_part
def _narrow(row: Floats, s: Scorer, possible: Bits) -> None:
    """Clear, tree by tree, the leaves that this row cannot reach."""
    possible[:] = _ALL
    for f in range(s.passed.shape[0]):
        n, end, state = s.node_start[f], s.node_start[f + 1], s.passed[f] - 1
        if n == end:
            continue
        x = 0.0 if abs(row[f]) <= _ZERO else row[f]
        if np.isnan(x):
            _leave(s.states[s.missing[f]], possible)
        elif x == 0.0 and s.zero[f] >= 0:
            _leave(s.states[s.zero[f]], possible)
        else:
            while n + STRIDE <= end and s.threshold[n + STRIDE - 1] < x:
                n += STRIDE
                state += 1
            if state >= s.passed[f]:
                _leave(s.states[state], possible)
            while n < end and s.threshold[n] < x:
                possible[s.tree[n]] &= s.keep[n]
                n += 1


@jit
def score(features: Floats, scorer: Scorer, out_ms: Floats) -> None:
    """Fill `out_ms` (m,) with the predicted latency of every candidate row of `features` (m, len(FEATURES))."""
    score_in(features, scorer, np.empty(scorer.leaf_start.shape[0], np.uint64), out_ms)


@jit_part
def score_in(features: Floats, scorer: Scorer, possible: Bits, out_ms: Floats) -> None:
    """Score as `score` does, with room for one number a tree instead of making it.

    Leaves are added in the order of the trees, as LightGBM does, so the sums agree to the last bit.
    """
    for j in range(features.shape[0]):
        _narrow(features[j], scorer, possible)
        log_ratio = 0.0
        for t in range(scorer.leaf_start.shape[0]):
            lowest = possible[t] & (~possible[t] + _ONE)
            log_ratio += scorer.leaf[scorer.leaf_start[t] + scorer.bit_position[(lowest * _MAGIC) >> _SHIFT]]
        physical = baseline_ms(
            features[j], scorer.first, scorer.second, scorer.coefficient_ms, scorer.floor_ms, scorer.ceiling_ms
        )
        out_ms[j] = scorer.mean_ratio * physical * math.exp(log_ratio)


def no_scorer() -> Scorer:
    """Make a scorer without trees, of the type that compiled code expects where there is no model."""
    return flatten([], (), Baseline({}, 0.0))


def scorer_of(model: LatencyModel) -> Scorer:
    """Flatten the mean of a model for `score`."""
    return flatten(parse_trees(model.booster), model.features, model.baseline, model.mean_ratio)


def flatten(trees: Sequence[Tree], features: Sequence[str], baseline: Baseline, mean_ratio: float = 1.0) -> Scorer:
    """Make the scorer of ``mean_ratio * baseline_ms * exp(trees)``; the trees split on positions in `features`."""
    columns = [_column(name) for name in features]
    nodes = sorted(node for t, tree in enumerate(trees) for node in _nodes(tree, t, columns))
    column, threshold, tree_of, keep, nan_left, zero_left, zero_missing = (
        zip(*nodes, strict=True) if nodes else [()] * 7
    )
    node_start = np.searchsorted(np.array(column, dtype=np.int64), np.arange(len(FEATURE_NAMES) + 1)).astype(np.int64)
    states = _States(len(trees), np.array(tree_of, dtype=np.int64), np.array(keep, dtype=np.uint64))
    first, second, coefficient_ms = baseline.columns()
    places = [states.of_column(a, b, nan_left, zero_left, zero_missing) for a, b in pairwise(node_start.tolist())]
    passed, missing, zero = np.array(places, dtype=np.int64).T.copy()
    return Scorer(
        node_start=node_start,
        threshold=np.array(threshold, dtype=np.float64),
        tree=np.array(tree_of, dtype=np.uint64),
        keep=np.array(keep, dtype=np.uint64),
        states=np.array(states.made, dtype=np.uint64).reshape(len(states.made), len(trees)),
        passed=passed,
        missing=missing,
        zero=zero,
        leaf_start=np.cumsum([0, *(len(tree.leaf) for tree in trees)])[:-1].astype(np.int64),
        leaf=np.array([tree.leaf[leaf] for tree in trees for leaf in tree.in_order()[0]], dtype=np.float64),
        bit_position=_bit_positions(),
        first=first,
        second=second,
        coefficient_ms=coefficient_ms,
        floor_ms=baseline.floor_ms,
        ceiling_ms=baseline.ceiling_ms,
        mean_ratio=mean_ratio,
    )


def _column(name: str) -> int:
    if name not in FEATURE_NAMES:
        raise ArtifactError(
            f"the model needs feature {name!r}, which this version does not make; expected some of "
            f"{', '.join(FEATURE_NAMES)}. Train and ship it again"
        )
    return FEATURE_NAMES.index(name)


def _nodes(tree: Tree, index: int, columns: list[int]) -> list[tuple[int, float, int, int, bool, bool, bool]]:
    """Return each node as (feature column, threshold, tree, kept leaves, NaN left, zero left, zero is missing)."""
    if len(tree.leaf) > MAX_LEAVES:
        raise ArtifactError(
            f"a tree has {len(tree.leaf)} leaves; expected at most {MAX_LEAVES}. Train with fewer leaves"
        )
    nodes = []
    for n, (start, end) in enumerate(tree.in_order()[1]):
        keep = (1 << 64) - 1 - ((1 << end) - (1 << start))
        column = columns[tree.feature[n]]
        nodes.append(
            (column, tree.threshold[n], index, keep, tree.nan_left(n), tree.zero_left(n), tree.zero_missing(n))
        )
    return nodes


class _States:
    """What nodes that fail leave of every tree.

    Attributes:
        made: one state after another, each of shape (trees,).
    """

    def __init__(self, trees: int, tree: Ints, keep: Bits) -> None:
        self._trees, self._tree, self._keep = trees, tree, keep
        self.made: list[Bits] = []

    def of_column(
        self, start: int, end: int, nan_left: Sequence[bool], zero_left: Sequence[bool], zero_missing: Sequence[bool]
    ) -> tuple[int, int, int]:
        """Make the states of the nodes from `start` to `end`; return `passed`, `missing` and `zero` of `Scorer`."""
        passed = len(self.made)
        if start == end:
            return passed, -1, -1
        self.made += [self._after(range(start, n + STRIDE)) for n in range(start, end - STRIDE + 1, STRIDE)]
        missing = len(self.made)
        self.made.append(self._after([n for n in range(start, end) if not nan_left[n]]))
        if not any(zero_missing[start:end]):
            return passed, missing, -1
        self.made.append(self._after([n for n in range(start, end) if not zero_left[n]]))
        return passed, missing, missing + 1

    def _after(self, failed: Sequence[int]) -> Bits:
        state = np.full(self._trees, _ALL)
        nodes = np.asarray(failed, dtype=np.int64)
        np.bitwise_and.at(state, self._tree[nodes], self._keep[nodes])
        return state


def _bit_positions() -> Ints:
    positions = np.empty(64, dtype=np.int64)
    for bit in range(64):
        positions[(_DE_BRUIJN << bit & (1 << 64) - 1) >> 58] = bit
    return positions
