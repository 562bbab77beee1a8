"""The trees of a text model as one ``TreeEnsembleRegressor`` node of ai.onnx.ml 3, with 64-bit thresholds and leaves.

Its successor, ``TreeEnsemble`` of ai.onnx.ml 5, also gives its sum in 64 bits, but ONNX Runtime has it only from 1.21
on, and from there to 1.23 computes some trees wrong without an error. This one is right in all of them; its sum is
rounded to 32 bits at the end: 5e-7 of the latency at most, as long as |log(latency / baseline)| is below 16.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from lodestar.models.textmodel import Tree

__all__ = ["SMALLEST", "tree_ensemble"]

SMALLEST: Final = float(np.float32(1e-35))  # LightGBM reads values up to this as zero


class Graph(Protocol):
    """What nodes are added to."""

    def add(self, op: str, *inputs: str, out: str = "", domain: str = "", **attributes: Any) -> str:
        """Add a node, and return the name of what it gives."""


class _Node(NamedTuple):
    """One node of one tree: a split, or a leaf, whose children mean nothing."""

    tree: int
    node: int
    mode: str
    feature: int = 0
    threshold: float = 0.0
    left: int = 0
    right: int = 0
    missing_left: int = 0
    weight: float = 0.0


def tree_ensemble(graph: Graph, inputs: str, trees: Sequence[Tree]) -> str:
    """Add the sum of the leaves that each row of `inputs` reaches, shape (n, 1) of 32-bit floats; return its name."""
    from onnx import numpy_helper

    nodes = [node for number, tree in enumerate(trees) for node in _nodes(number, tree)]
    leaves = [node for node in nodes if node.mode == "LEAF"]
    return graph.add(
        "TreeEnsembleRegressor",
        inputs,
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function="SUM",
        post_transform="NONE",
        nodes_treeids=[node.tree for node in nodes],
        nodes_nodeids=[node.node for node in nodes],
        nodes_modes=[node.mode for node in nodes],
        nodes_featureids=[node.feature for node in nodes],
        nodes_values_as_tensor=numpy_helper.from_array(np.array([node.threshold for node in nodes])),
        nodes_truenodeids=[node.left for node in nodes],
        nodes_falsenodeids=[node.right for node in nodes],
        nodes_missing_value_tracks_true=[node.missing_left for node in nodes],
        target_treeids=[leaf.tree for leaf in leaves],
        target_nodeids=[leaf.node for leaf in leaves],
        target_ids=[0] * len(leaves),
        target_weights_as_tensor=numpy_helper.from_array(np.array([leaf.weight for leaf in leaves])),
    )


def _nodes(number: int, tree: Tree) -> Iterator[_Node]:
    """List the splits of a tree, the root first, then its leaves; their numbers go on where those of the splits end."""
    splits = len(tree.threshold)
    for node, threshold in enumerate(tree.threshold):
        left, right = (splits + ~at if at < 0 else at for at in (tree.left[node], tree.right[node]))
        missing_left = int(tree.nan_left(node))
        yield _Node(number, node, "BRANCH_LEQ", tree.feature[node], threshold, left, right, missing_left)
    for leaf, weight in enumerate(tree.leaf):
        yield _Node(number, splits + leaf, "LEAF", weight=weight)
