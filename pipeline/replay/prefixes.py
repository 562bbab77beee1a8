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
        node_start: prompt tokens before each node, shape (nodes,).
        node_end: prompt tokens up to its end, shape (nodes,).
    """

    path: Ints
    offsets: Ints
    node_start: Ints
    node_end: Ints


def prefix_tree(workload: Workload) -> PrefixTree:
    """Compress a workload's blocks into a tree, exactly, in a few passes over arrays.

    Blocks that only one request has are in no node, nor is a last block that the prompt fills only partly: engines
    share whole blocks. A block continues its parent's node when as many requests have it as have the parent: then all
    of them do.

    >>> ids, offsets = np.array([0, 1, 2, 0, 1, 3]), np.array([0, 3, 6])
    >>> two = Workload(np.zeros(2), np.array([48, 40]), np.ones(2, int), ids, offsets, 16)
    >>> tree = prefix_tree(two)
    >>> tree.path.tolist(), tree.node_start.tolist(), tree.node_end.tolist()
    ([0, 0], [0], [32])
    """
    ids, offsets = _whole_blocks(workload)
    owner = np.repeat(np.arange(len(workload)), np.diff(offsets))
    previous = _previous_block(ids, offsets)
    uses = np.bincount(ids, minlength=1)
    shared = uses[ids] > 1
    head = shared & ((previous < 0) | (uses[previous] != uses[ids]))
    node_of_block = np.full(len(uses), -1, dtype=np.int64)
    heads = np.unique(ids[head])
    node_of_block[heads] = np.arange(len(heads))
    path = node_of_block[ids[head]]
    node_start = np.zeros(len(heads), dtype=np.int64)
    node_tokens = np.zeros(len(heads), dtype=np.int64)
    node_tokens[path] = _run_lengths(head, shared) * workload.block_tokens
    node_start[path] = (np.flatnonzero(head) - offsets[owner[head]]) * workload.block_tokens
    path_offsets = np.searchsorted(owner[head], np.arange(len(workload) + 1))
    return PrefixTree(path, path_offsets, node_start, node_start + node_tokens)


def _whole_blocks(workload: Workload) -> tuple[Ints, Ints]:
    """Leave out blocks that reach beyond the prompt."""
    listed = np.diff(workload.block_offsets)
    whole = np.minimum(listed, workload.prompt_tokens // workload.block_tokens)
    if np.array_equal(whole, listed):
        return workload.block_ids, workload.block_offsets
    within = np.arange(len(workload.block_ids)) - np.repeat(workload.block_offsets[:-1], listed)
    return workload.block_ids[within < np.repeat(whole, listed)], np.concatenate([[0], np.cumsum(whole)])


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
