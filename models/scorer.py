"""Trees and baseline as flat arrays, scored by compiled code: what the replay kernel and the router run per decision.

The trees are evaluated as QuickScorer does it (Lucchese et al., SIGIR 2015): nodes are sorted by feature and
threshold, every leaf of a tree is a bit, and a node whose condition fails clears the bits of the leaves on its left;
the lowest bit left is the leaf reached. No branch depends on the shape of a tree, and a feature's scan ends at its
first true node.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import ArtifactError
from lodestar.data.jit import jit, jit_part
from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.baseline import baseline_ms
from lodestar.models.latency import LatencyModel
from lodestar.models.textmodel import Tree, parse_trees

__all__ = ["MAX_LEAVES", "Scorer", "no_scorer", "score", "score_in", "scorer_of"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Bits = NDArray[np.uint64]

MAX_LEAVES: Final = 64  # one bit each

_DE_BRUIJN = 0x03F79D71B4CB0A89  # its 64 six-bit windows are all different, so one names the position of a lone bit
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_MAGIC = np.uint64(_DE_BRUIJN)
_SHIFT = np.uint64(58)
_ZERO = float(np.float32(1e-35))  # LightGBM reads values up to this as zero
_ONE = np.uint64(1)


class Scorer(NamedTuple):
    """One `LatencyModel`, flattened; nodes are ordered by feature, then threshold.

    Attributes:
        node_start: nodes of feature column f are ``node_start[f]`` up to ``node_start[f + 1]``.
        threshold: a row goes left where its feature is at most this.
        nan_left: whether a missing value goes left.
        zero_left: whether a zero goes left, for models that take zero as missing.
        zero_missing: per feature column, whether any of its nodes takes zero as missing.
        tree: tree of the node (unsigned, so that indexing with it needs no test for a negative).
        keep: bits of the leaves that stay possible when the row goes right.
        leaf_start: first leaf of every tree.
        leaf: leaf values, on the log scale.
        bit_position: de Bruijn window → position of the bit.
        first: first factor of each baseline term (column), -1 for none.
        second: second factor.
        coefficient_ms: of each baseline term.
        floor_ms: lowest baseline.
        mean_ratio: the factor that makes predictions right in the mean.
    """

    node_start: Ints
    threshold: Floats
    nan_left: Bools
    zero_left: Bools
    zero_missing: Bools
    tree: Bits
    keep: Bits
    leaf_start: Ints
    leaf: Floats
    bit_position: Ints
    first: Ints
    second: Ints
    coefficient_ms: Floats
    floor_ms: float
    mean_ratio: float


@jit_part
def _narrow(row: Floats, s: Scorer, possible: Bits) -> None:
    """Clear, tree by tree, the leaves that this row cannot reach."""
    possible[:] = _ALL
    for f in range(s.zero_missing.shape[0]):
        x = 0.0 if abs(row[f]) <= _ZERO else row[f]
        if np.isnan(x):
            for n in range(s.node_start[f], s.node_start[f + 1]):
                if not s.nan_left[n]:
                    possible[s.tree[n]] &= s.keep[n]
        elif s.zero_missing[f] and x == 0.0:
            for n in range(s.node_start[f], s.node_start[f + 1]):
                if not s.zero_left[n]:
                    possible[s.tree[n]] &= s.keep[n]
        else:
            for n in range(s.node_start[f], s.node_start[f + 1]):
                if x <= s.threshold[n]:
                    break
                possible[s.tree[n]] &= s.keep[n]


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
        physical = baseline_ms(features[j], scorer.first, scorer.second, scorer.coefficient_ms, scorer.floor_ms)
        out_ms[j] = scorer.mean_ratio * physical * math.exp(log_ratio)


def no_scorer() -> Scorer:
    """Make a scorer without trees, of the type that compiled code expects where there is no model."""
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


def scorer_of(model: LatencyModel) -> Scorer:
    """Flatten a model for `score`."""
    trees = parse_trees(model.booster)
    columns = [_column(name) for name in model.features]
    nodes = sorted(node for t, tree in enumerate(trees) for node in _nodes(tree, t, columns))
    arrays = list(zip(*nodes, strict=True)) if nodes else [()] * 7
    feature = np.array(arrays[0], dtype=np.int64)
    zero_missing = np.zeros(len(FEATURE_NAMES), dtype=np.bool_)
    zero_missing[feature[np.array(arrays[6], dtype=np.bool_)]] = True
    first, second, coefficient_ms = model.baseline.columns()
    return Scorer(
        node_start=np.searchsorted(feature, np.arange(len(FEATURE_NAMES) + 1)).astype(np.int64),
        threshold=np.array(arrays[1], dtype=np.float64),
        nan_left=np.array(arrays[4], dtype=np.bool_),
        zero_left=np.array(arrays[5], dtype=np.bool_),
        zero_missing=zero_missing,
        tree=np.array(arrays[2], dtype=np.uint64),
        keep=np.array(arrays[3], dtype=np.uint64),
        leaf_start=np.cumsum([0] + [len(tree.leaf) for tree in trees[:-1]]).astype(np.int64),
        leaf=np.concatenate([_left_to_right(tree) for tree in trees]),
        bit_position=_bit_positions(),
        first=first,
        second=second,
        coefficient_ms=coefficient_ms,
        floor_ms=model.baseline.floor_ms,
        mean_ratio=model.mean_ratio,
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
    rank = {leaf: bit for bit, leaf in enumerate(tree.leaves_below(0))}
    if len(rank) > MAX_LEAVES:
        raise ArtifactError(f"a tree has {len(rank)} leaves; expected at most {MAX_LEAVES}. Train with fewer leaves")
    nodes = []
    for n in range(len(tree.threshold)):
        cleared = sum(1 << rank[leaf] for leaf in tree.leaves_below(tree.left[n]))
        column = columns[tree.feature[n]]
        keep = ~cleared & (1 << 64) - 1
        nodes.append(
            (column, tree.threshold[n], index, keep, tree.nan_left(n), tree.zero_left(n), tree.zero_missing(n))
        )
    return nodes


def _left_to_right(tree: Tree) -> Floats:
    return np.array([tree.leaf[leaf] for leaf in tree.leaves_below(0)])


def _bit_positions() -> Ints:
    positions = np.empty(64, dtype=np.int64)
    for bit in range(64):
        positions[(_DE_BRUIJN << bit & (1 << 64) - 1) >> 58] = bit
    return positions
