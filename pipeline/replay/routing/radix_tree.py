"""A radix tree over prefix nodes, as policies keep it in their memory: which column holds what, each says itself."""

from __future__ import annotations

from lodestar.data.jit import jit_inner
from lodestar.pipeline.replay.routing.compiled import Memory, Prefixes, Request

__all__ = ["after_matched", "lower_part"]


@jit_inner
def after_matched(request: Request, prefixes: Prefixes, memory: Memory, there: int) -> int:
    """Return the place in the path after the deepest node that the tree has: those with ``of_node[:, there]`` > 0."""
    at = request.path_from
    while at < request.path_to and memory.of_node[prefixes.path[at], there] > 0.0:
        at += 1
    return at


@jit_inner
def lower_part(
    node: int, prefixes: Prefixes, memory: Memory, first: int, ends: int, path_from: int, path_to: int
) -> tuple[int, int]:
    """Return what a tree node that goes on below this place ends in: (node, -1), or the tail of a request (-1, i).

    Args:
        node: the place.
        prefixes: of prompts.
        memory: of the policy.
        first: column of a node's first request, plus 1.
        ends: column that says whether a tree node ends in a node.
        path_from: column where a request keeps the beginning of its path.
        path_to: and its end.
    """
    i = int(memory.of_node[node, first]) - 1
    below = False
    for at in range(int(memory.of_request[i, path_from]), int(memory.of_request[i, path_to])):
        other = int(prefixes.path[at])
        if below and memory.of_node[other, ends] > 0.0:
            return other, -1
        below = below or other == node
    return -1, i
