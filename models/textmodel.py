"""The trees of a LightGBM text model, as Python lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lodestar.data.errors import ArtifactError

if TYPE_CHECKING:
    import lightgbm as lgb

__all__ = ["Tree", "parse_trees", "trees_of"]

# Bits of LightGBM's decision_type: 1 categorical, 2 default left, then two bits for what counts as missing.
_CATEGORICAL, _DEFAULT_LEFT, _MISSING_SHIFT = 1, 2, 2
_ZERO, _NAN = 1, 2
#: Objectives whose prediction is the sum of the leaves; a model trained with a function of one's own names none.
_SUMMED = ("regression", "regression_l1", "huber", "fair", "quantile", "mape", "")


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

    def in_order(self) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the leaves from left to right and, of every node, which of these places lie under its left child.

        >>> Tree([0, 0], [1.0, 2.0], [2, 2], [~0, ~1], [1, ~2], [0.1, 0.2, 0.3]).in_order()
        ([0, 1, 2], [(0, 1), (1, 2)])
        """
        leaves: list[int] = []
        lefts = [(0, 0)] * len(self.threshold)
        pending = [(0 if self.threshold else ~0, True)]
        while pending:
            node, new = pending.pop()
            if node < 0:
                leaves.append(~node)
            elif new:  # its left child comes next, then the node again
                lefts[node] = (len(leaves), 0)
                pending += [(node, False), (self.left[node], True)]
            else:
                lefts[node] = (lefts[node][0], len(leaves))
                pending.append((self.right[node], True))
        return leaves, lefts

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
    return trees_of(booster.model_to_string(num_iteration=-1))


def trees_of(text: str) -> list[Tree]:
    """Read the trees of a text model, without LightGBM.

    Raises:
        ArtifactError: the text is no whole model, or more is made of the leaves than their sum, or a split is not on
            one number.
    """
    head, *blocks = text.split("\nend of trees")[0].split("\nTree=")
    if not text.startswith("tree\n") or "\nend of trees" not in text:
        raise ArtifactError("the model text has no trees from start to end; expected LightGBM's format. Ship it again")
    fields = _fields(head)
    objective, *options = fields.get("objective", "").split(" ")
    if objective not in _SUMMED or "sqrt" in options or "average_output" in head.splitlines():
        raise ArtifactError(
            f"the model has objective {fields.get('objective')!r} and boosting that does more than add the leaves up; "
            f"expected a sum of leaves with one of {', '.join(filter(None, _SUMMED))}. Train it again"
        )
    return [_tree(_fields(block)) for block in blocks]


def _fields(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


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
