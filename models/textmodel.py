"""The trees of a LightGBM text model, as Python lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lodestar.data.errors import ArtifactError

if TYPE_CHECKING:
    import lightgbm as lgb

__all__ = ["Tree", "parse_trees"]

# Bits of LightGBM's decision_type: 1 categorical, 2 default left, then two bits for what counts as missing.
_CATEGORICAL, _DEFAULT_LEFT, _MISSING_SHIFT = 1, 2, 2
_ZERO, _NAN = 1, 2


@dataclass(frozen=True, slots=True)
class Tree:
    """One tree. Children are node numbers, or ``~leaf`` for a leaf; a tree without nodes is its one leaf.

    Attributes:
        feature: split feature of every node.
        threshold: a row goes left where the feature is at most this.
        decision: LightGBM's decision_type of every node.
        left: left child of every node.
        right: right child of every node.
        leaf: value of every leaf.
    """

    feature: list[int]
    threshold: list[float]
    decision: list[int]
    left: list[int]
    right: list[int]
    leaf: list[float]

    def leaves_below(self, node: int) -> list[int]:
        """Return the leaves under `node`, from left to right.

        >>> Tree([0, 0], [1.0, 2.0], [2, 2], [~0, ~1], [1, ~2], [0.1, 0.2, 0.3]).leaves_below(1)
        [1, 2]
        """
        if not self.threshold:
            return [0]
        pending, leaves = [node], []
        while pending:
            below = pending.pop()
            if below < 0:
                leaves.append(~below)
            else:
                pending += [self.right[below], self.left[below]]
        return leaves

    def nan_left(self, node: int) -> bool:
        """Say whether NaN goes left; where the node does not take NaN as missing, NaN counts as zero."""
        if self._missing(node) in (_ZERO, _NAN):
            return bool(self.decision[node] & _DEFAULT_LEFT)
        return self.threshold[node] >= 0.0

    def zero_left(self, node: int) -> bool:
        """Say whether zero goes left."""
        if self.zero_missing(node):
            return bool(self.decision[node] & _DEFAULT_LEFT)
        return self.threshold[node] >= 0.0

    def zero_missing(self, node: int) -> bool:
        """Say whether the node takes zero as missing."""
        return self._missing(node) == _ZERO

    def _missing(self, node: int) -> int:
        return self.decision[node] >> _MISSING_SHIFT & 3


def parse_trees(booster: lgb.Booster) -> list[Tree]:
    """Read the trees in the order in which their leaves are added."""
    text = booster.model_to_string(num_iteration=-1)
    blocks = text.split("end of trees")[0].split("\nTree=")[1:]
    return [_tree(dict(line.split("=", 1) for line in block.splitlines() if "=" in line)) for block in blocks]


def _tree(fields: dict[str, str]) -> Tree:
    tree = Tree(
        feature=[int(x) for x in fields.get("split_feature", "").split()],
        threshold=[float(x) for x in fields.get("threshold", "").split()],
        decision=[int(x) for x in fields.get("decision_type", "").split()],
        left=[int(x) for x in fields.get("left_child", "").split()],
        right=[int(x) for x in fields.get("right_child", "").split()],
        leaf=[float(x) for x in fields["leaf_value"].split()],
    )
    if fields.get("is_linear", "0") != "0" or any(decision & _CATEGORICAL for decision in tree.decision):
        raise ArtifactError("the model has linear or categorical splits; expected plain numeric trees. Train it again")
    return tree
