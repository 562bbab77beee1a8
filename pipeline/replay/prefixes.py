"""Prefix blocks as a tree of runs: what the caches of engines and routers hold."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.data.log import Workload

__all__ = ["PrefixTree", "prefix_tree"]

Ints = NDArray[np.int64]


class PrefixTree(NamedTuple):
    """The shared part of every prompt as a path of nodes; a node is a run of blocks that always occur together.

    Attributes:
        path: node ids of all requests one after the other, from the root outwards.
        offsets: request i owns ``path[offsets[i]:offsets[i + 1]]``, shape (n + 1,).
        node_tokens: prompt tokens of each node, shape (nodes,).
        tail_tokens: prompt tokens of request i that no other request shares, shape (n,).
    """

    path: Ints
    offsets: Ints
    node_tokens: Ints
    tail_tokens: Ints


def prefix_tree(workload: Workload) -> PrefixTree:
    """Compress a workload's blocks into a tree, exactly, in a few passes over arrays.

    Blocks that only one request has are its tail. A block continues its parent's node when as many requests
    have it as have the parent: then all of them do.

    >>> ids, offsets = np.array([0, 1, 2, 0, 1, 3]), np.array([0, 3, 6])
    >>> two = Workload(np.zeros(2), np.array([48, 40]), np.ones(2, int), ids, offsets, 16)
    >>> tree = prefix_tree(two)
    >>> tree.path.tolist(), tree.node_tokens.tolist(), tree.tail_tokens.tolist()
    ([0, 0], [32], [16, 8])
    """
    ids, offsets = workload.block_ids, workload.block_offsets
    owner = np.repeat(np.arange(len(workload)), np.diff(offsets))
    previous = _previous_block(ids, offsets)
    uses = np.bincount(ids, minlength=1)
    shared = uses[ids] > 1
    head = shared & ((previous < 0) | (uses[previous] != uses[ids]))
    node_of_block = np.full(len(uses), -1, dtype=np.int64)
    heads = np.unique(ids[head])
    node_of_block[heads] = np.arange(len(heads))
    path = node_of_block[ids[head]]
    node_tokens = np.zeros(len(heads), dtype=np.int64)
    node_tokens[path] = _run_lengths(head, shared) * workload.block_tokens
    path_offsets = np.searchsorted(owner[head], np.arange(len(workload) + 1))
    covered = np.bincount(owner[head], weights=node_tokens[path], minlength=len(workload)).astype(np.int64)
    # The last block of a prompt may be partly filled, so that the blocks cover a little more than the prompt.
    tail = np.maximum(workload.prompt_tokens - covered, 0)
    return PrefixTree(path, path_offsets, node_tokens, tail)


def _previous_block(ids: Ints, offsets: Ints) -> Ints:
    previous = np.empty_like(ids)
    if not len(ids):
        return previous
    previous[1:] = ids[:-1]
    previous[offsets[:-1][np.diff(offsets) > 0]] = -1
    parent = np.empty(ids.max() + 1, dtype=np.int64)
    parent[ids] = previous
    if not np.array_equal(parent[ids], previous):
        block = int(ids[np.flatnonzero(parent[ids] != previous)[0]])
        raise DataError(
            f"prefix block {block} follows two different blocks; expected a block id to stand for the whole prefix "
            "up to and including it. Chain the hashes of the blocks before ingesting"
        )
    return previous


def _run_lengths(head: NDArray[np.bool_], shared: NDArray[np.bool_]) -> Ints:
    """Count the blocks from each head up to the next head or the end of the request's shared part."""
    run = np.cumsum(head) - 1
    return np.bincount(run[shared], minlength=int(head.sum()))
