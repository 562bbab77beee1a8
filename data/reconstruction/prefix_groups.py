"""Which requests shared a prefix, inferred from the hit ratios that the router logged.

A request whose hits lie on exactly the instances that a group of earlier requests visited, with a shared length that
fits the group's, joins that group. The log does not name the groups, so a request may join a twin of its own group.
Where several routers served the same requests, each log is an arm: a group must have visited, in every arm, the
instances of the hits there, which leaves far fewer twins. `reproduced` measures how many hits come out as logged.

Where many requests hit deeper on some instances than on others, prefixes branch, as when all share a system prompt and
some of them more: then there are groups within groups, level by level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from lodestar.data.jit import jit
from lodestar.data.log import Floats, Ints
from lodestar.data.reconstruction.group_search import Bools, Wanted, Words, assign, packed

__all__ = ["Arm", "PrefixGroups", "depths_differ", "group_blocks", "infer_groups", "infer_groups_jointly", "reproduced"]

POINT: Final = 0.01  # logs round the ratio to whole percent
FLAT: Final = 0.01  # of the requests may hit deeper here than there before groups are taken to branch
LEVELS: Final = 4
JOINING: Final = 0.02  # two requests may share a few tokens more than their group by chance


class Arm(NamedTuple):
    """One router's log of the requests: what it believed cached, shape (n, m), and the instance it chose, -1 for none.

    A request without a choice and without any hit known is not in this arm.
    """

    hit_ratio: Floats
    chosen: Ints


class PrefixGroups(NamedTuple):
    """The group of every request, and the size and the shared prefix of every group; 0 where nobody hit it.

    Where prefixes branch, `deeper` has the groups within these that share more.
    """

    group: Ints
    size: Ints
    shared_tokens: Floats
    deeper: PrefixGroups | None = None

    def levels(self) -> list[PrefixGroups]:
        """List the groups from the shallowest level to the deepest."""
        return [self, *(self.deeper.levels() if self.deeper else [])]


def infer_groups(prompt_tokens: Ints, hit_ratio: Floats, chosen: Ints) -> PrefixGroups:
    """Put requests, in dispatch order, into groups that shared a prefix.

    >>> hits = np.array([[0.0, 0.0], [0.5, 0.0], [0.0, 0.0], [0.5, 0.5]])
    >>> infer_groups(np.full(4, 100), hits, np.array([0, 1, 0, 1])).group.tolist()
    [0, 0, 1, 0]
    """
    return infer_groups_jointly(prompt_tokens, [Arm(hit_ratio, chosen)])


def infer_groups_jointly(prompt_tokens: Ints, arms: Sequence[Arm], block_tokens: int = 16) -> PrefixGroups:
    """Put requests into groups whose visits agree with the hits in every arm; what they share is whole blocks.

    Two requests alike in the first arm are told apart by the second:

    >>> one = Arm(np.array([[0.0, 0.0], [0.0, 0.0], [0.5, 0.0], [0.5, 0.0]]), np.array([0, 0, 0, 0]))
    >>> two = Arm(np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 0.5], [0.5, 0.0]]), np.array([0, 1, 1, 0]))
    >>> infer_groups_jointly(np.full(4, 100), [one]).group.tolist()
    [0, 1, 0, 1]
    >>> infer_groups_jointly(np.full(4, 100), [one, two]).group.tolist()
    [0, 1, 1, 0]
    """
    hit_ratio = np.concatenate([arm.hit_ratio for arm in arms], axis=1)
    absent = np.concatenate([np.broadcast_to(_absent(arm)[:, None], arm.hit_ratio.shape) for arm in arms], axis=1)
    chosen = np.concatenate([arm.chosen[:, None] == np.arange(arm.hit_ratio.shape[1]) for arm in arms], axis=1)
    share = np.where(np.nan_to_num(hit_ratio) > 0, hit_ratio, np.nan)
    top = np.zeros(len(prompt_tokens), dtype=np.int64)
    return _levels(prompt_tokens, share, chosen, ~packed(absent), top, block_tokens, LEVELS)


def _levels(
    prompt: Ints, share: Floats, chosen: Bools, told: Words, parent: Ints, block_tokens: int, left: int
) -> PrefixGroups:
    """Find the groups that the shallowest hits tell of; where deeper ones remain, find the branches within them."""
    branching = left > 1 and depths_differ(share) > FLAT
    lowest, highest = _bounds(share, prompt, branching)
    hit_tokens = np.fmin.reduce(share, axis=1) * prompt
    sets, before, after = _sets(~np.isnan(share), chosen)
    tokens = prompt.astype(np.float64)
    wanted = Wanted(tokens, lowest, highest, hit_tokens, parent, told, packed(chosen), before, after)
    group, size = assign(wanted, sets)
    level = PrefixGroups(group, size, _shared_tokens(group, len(size), share, prompt, block_tokens, branching))
    if not branching:
        return level
    shared = level.shared_tokens[group] / np.maximum(prompt, 1)
    deeper = np.where(share > shared[:, None] + JOINING, share, np.nan)
    return level._replace(deeper=_levels(prompt, deeper, chosen, told, group, block_tokens, left - 1))


def _sets(hit: Bools, chosen: Bools) -> tuple[Words, Ints, Ints]:
    """Number the sets of instances, hit and then visited: a group is found by the number of the set it visited."""
    sets, number = np.unique(packed(np.concatenate([hit, hit | chosen])), axis=0, return_inverse=True)
    number = number.reshape(-1).astype(np.int64)
    return sets, number[: len(hit)], number[len(hit) :]


def _absent(arm: Arm) -> Bools:
    return (arm.chosen < 0) & np.isnan(arm.hit_ratio).all(axis=1)


def _bounds(share: Floats, prompt_tokens: Ints, branching: bool) -> tuple[Floats, Floats]:
    """Bound the shared tokens by the hits of each request: 0 and infinity where it has none.

    Where prefixes branch, every hit may be of a branch, and bounds what the whole group shares from above only.
    """
    lowest_share = np.fmin.reduce(share, axis=1)
    highest_share = np.minimum(np.fmax.reduce(share, axis=1), lowest_share + JOINING)
    lowest = np.nan_to_num((highest_share - JOINING) * prompt_tokens) * (not branching)
    return lowest, np.nan_to_num((lowest_share + JOINING) * prompt_tokens, nan=np.inf)


def _shared_tokens(
    group: Ints, groups: int, share: Floats, prompt_tokens: Ints, block_tokens: int, branching: bool
) -> Floats:
    """Find the number of blocks that most requests of each group bear out, near the middle of what they allow.

    Where prefixes branch, only the shallow hits are the whole group's.
    """
    known = np.flatnonzero(~np.isnan(share).all(axis=1))
    owner, slack = group[known], POINT * prompt_tokens[known]
    lowest, highest = (
        find(share[known], axis=1) * prompt_tokens[known] for find in (np.nanmin, np.nanmin if branching else np.nanmax)
    )
    ends, owners = np.concatenate([highest - slack, lowest + slack]), np.concatenate([owner, owner])
    ends = ends[np.lexsort((ends, owners))]
    count = np.bincount(owner, minlength=groups)
    start, some = np.cumsum(2 * count) - 2 * count, count > 0
    middle = start + np.maximum(count // 2 if branching else count, 1)
    shared, best = np.zeros(groups), np.full(groups, -1)
    shared[some] = (ends[middle[some] - 1] + ends[middle[some]]) / 2
    nearest = np.round(shared / block_tokens)
    for blocks in (nearest, nearest - 1, nearest + 1):
        tokens = np.maximum(blocks, 0) * block_tokens
        fits = (highest - slack <= tokens[owner]) & (tokens[owner] <= lowest + slack)
        borne_out = np.bincount(owner[fits], minlength=groups)
        shared, best = np.where(borne_out > best, tokens, shared), np.maximum(best, borne_out)
    return np.where(some, shared, 0.0)


def group_blocks(groups: PrefixGroups, prompt_tokens: Ints, block_tokens: int) -> tuple[Ints, Ints]:
    """Express the groups as prefix blocks: `block_ids` one request after the other, and `block_offsets`."""
    whole = prompt_tokens // block_tokens
    above, next_id = np.zeros(len(whole), dtype=np.int64), 0
    parts: list[tuple[Ints, Ints, Ints]] = []  # of each level: how many blocks lie above, how many here, the first id
    for level in groups.levels():
        reach = np.maximum(np.round(level.shared_tokens / block_tokens).astype(np.int64)[level.group], above)
        here = np.minimum(reach, whole) - above
        longest = np.zeros(len(level.size), dtype=np.int64)
        np.maximum.at(longest, level.group, here)
        first = next_id + np.cumsum(longest) - longest
        parts.append((above, here, first[level.group]))
        above, next_id = above + here, next_id + int(longest.sum())
    offsets = np.concatenate([[0], np.cumsum(above)]).astype(np.int64)
    block_ids = np.zeros(offsets[-1], dtype=np.int64)
    for start, here, first in parts:
        within = np.arange(here.sum()) - np.repeat(np.cumsum(here) - here, here)
        block_ids[np.repeat(offsets[:-1] + start, here) + within] = np.repeat(first, here) + within
    return block_ids, offsets


def depths_differ(hit_ratio: Floats) -> float:
    """Return the share of requests whose hits differ by more than chance: their prefixes form a tree, not groups.

    >>> depths_differ(np.array([[0.2, 0.6], [0.5, 0.51], [0.0, 0.5], [0.0, 0.0]]))
    0.25
    """
    share = np.where(np.nan_to_num(hit_ratio) > 0, hit_ratio, np.nan)
    spread = np.fmax.reduce(share, axis=1) - np.fmin.reduce(share, axis=1)
    return float(np.mean(spread > 2 * JOINING)) if len(share) else 0.0


def reproduced(groups: PrefixGroups, block_tokens: int, prompt_tokens: Ints, arm: Arm) -> float:
    """Replay an arm's choices through a router's prefix index: the share of its requests with every hit as logged."""
    hits, whole = np.zeros_like(arm.hit_ratio), prompt_tokens // block_tokens
    for level in groups.levels():
        blocks = np.minimum(np.round(level.shared_tokens[level.group] / block_tokens), whole)
        cached = blocks * block_tokens / np.maximum(prompt_tokens, 1)
        hits = np.maximum(hits, _index_hits(level.group, cached, arm.chosen, arm.hit_ratio.shape[1]))
    as_logged = np.all(np.abs(hits - np.nan_to_num(arm.hit_ratio)) <= POINT + 1e-9, axis=1)
    return float(np.mean(as_logged[~_absent(arm)]))


@jit
def _index_hits(group: Ints, cached: Floats, chosen: Ints, instances: int) -> Floats:
    visited = np.zeros((group.max() + 1, instances), dtype=np.bool_)
    hits = np.zeros((len(group), instances))
    for i in range(len(group)):
        for j in range(instances):
            if visited[group[i], j]:
                hits[i, j] = cached[i]
        if chosen[i] >= 0:
            visited[group[i], chosen[i]] = True
    return hits
