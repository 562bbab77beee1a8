"""Which requests shared a prefix, inferred from the hit ratios that the router logged.

A request whose hits lie on exactly the instances that a group of earlier requests visited, with a shared length that
fits the group's, joins that group. The log does not name the groups, so a request may join a twin of its own group;
what the replay needs is that hits come out as logged, and `reproduced` measures that.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar.data.jit import jit
from lodestar.data.log import Floats, Ints

__all__ = ["PrefixGroups", "group_blocks", "infer_groups", "reproduced"]

POINT: Final = 0.01  # logs round the ratio to whole percent
SAME_LENGTH: Final = 0.03  # prompts of one group differ by less than this, mostly
WINDOW: Final = 4096  # groups looked back on where none fits exactly

WORD: Final = 64  # instances in one word of a set

Bools = NDArray[np.bool_]
Words = NDArray[np.uint64]


class PrefixGroups(NamedTuple):
    """The group of every request, and for every group its size and the bounds of its shared prefix in tokens."""

    group: Ints
    size: Ints
    shortest: Floats
    longest: Floats

    @property
    def shared_tokens(self) -> Floats:
        """The middle of the bounds; 0 for a group of one, whose prefix nobody shared."""
        return np.where(self.size > 1, (self.shortest + self.longest) / 2, 0.0)


def infer_groups(prompt_tokens: Ints, hit_ratio: Floats, chosen: Ints) -> PrefixGroups:
    """Put requests, in dispatch order, into groups that shared a prefix.

    >>> hits = np.array([[0.0, 0.0], [0.5, 0.0], [0.0, 0.0], [0.5, 0.5]])
    >>> infer_groups(np.full(4, 100), hits, np.array([0, 1, 0, 1])).group.tolist()
    [0, 0, 1, 0]
    """
    hit = np.nan_to_num(hit_ratio) > 0
    after = hit.copy()
    decided = np.flatnonzero(chosen >= 0)
    after[decided, chosen[decided]] = True
    # Sets of instances as dense numbers: a group is found by the number of the set that it visited.
    sets, number = np.unique(_packed(np.concatenate([hit, after])), axis=0, return_inverse=True)
    number = number.reshape(-1).astype(np.int64)
    members = np.zeros(len(sets), dtype=np.int64)
    members[number] = np.concatenate([hit, after]).sum(axis=1)
    share = np.where(hit, np.nan_to_num(hit_ratio), np.nan)
    known = hit.any(axis=1)
    lowest, highest = np.zeros(len(hit)), np.full(len(hit), np.inf)
    lowest[known] = (np.nanmax(share[known], axis=1) - POINT) * prompt_tokens[known]
    highest[known] = (np.nanmin(share[known], axis=1) + POINT) * prompt_tokens[known]
    n = len(hit)
    return PrefixGroups(
        *_assign(prompt_tokens.astype(np.float64), lowest, highest, chosen, sets, members, number[:n], number[n:])
    )


def _packed(rows: Bools) -> Words:
    """Write every row as words, one bit an instance, so that sets compare a word at a time."""
    n, m = rows.shape
    padded = np.zeros((n, -(-max(m, 1) // WORD) * WORD), dtype=np.bool_)
    padded[:, :m] = rows
    return np.packbits(padded, axis=1, bitorder="little").view(np.uint64)


def group_blocks(groups: PrefixGroups, prompt_tokens: Ints, block_tokens: int) -> tuple[Ints, Ints]:
    """Express the groups as prefix blocks: `block_ids` one request after the other, and `block_offsets`."""
    length = np.round(groups.shared_tokens / block_tokens).astype(np.int64)
    first = np.cumsum(length) - length
    count = np.minimum(length[groups.group], prompt_tokens // block_tokens)
    offsets = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], count)
    return np.repeat(first[groups.group], count) + within, offsets


def reproduced(
    groups: PrefixGroups, block_offsets: Ints, block_tokens: int, prompt_tokens: Ints, hit_ratio: Floats, chosen: Ints
) -> float:
    """Replay the logged choices through a router's prefix index: the share of requests with every hit as logged."""
    cached = np.diff(block_offsets) * block_tokens / prompt_tokens
    hits = _index_hits(groups.group, cached, chosen, hit_ratio.shape[1])
    return float(np.mean(np.all(np.abs(hits - np.nan_to_num(hit_ratio)) <= POINT + 1e-9, axis=1)))


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


@jit
def _assign(
    prompt: Floats,
    lowest: Floats,
    highest: Floats,
    chosen: Ints,
    sets: Words,
    members: Ints,
    before: Ints,
    after: Ints,
) -> tuple[Ints, Ints, Floats, Floats]:
    n = len(prompt)
    group, count = np.zeros(n, dtype=np.int64), 0
    size, place = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    shortest, longest, typical = np.zeros(n), np.zeros(n), np.zeros(n)
    head = np.full(len(sets), -1)  # per set of instances: its first group; the groups of a set form a linked list
    following, preceding = np.full(n, -1), np.full(n, -1)
    for i in range(n):
        found = -1
        now = after[i]
        high = min(highest[i], prompt[i])
        if members[before[i]] > 0:
            found = _best(head[before[i]], following, prompt[i], lowest[i], high, size, shortest, longest, typical)
            if found < 0:
                found = _nearest(sets, members, place, before[i], count, lowest[i], high, shortest, longest)
                if found >= 0:
                    now = _joined(sets, place[found], chosen[i], now)
        if found < 0:
            found, count = count, count + 1
            shortest[found], longest[found], typical[found] = lowest[i], high, prompt[i]
        else:
            _unlink(found, place[found], head, following, preceding)
            shortest[found] = max(shortest[found], lowest[i])
            longest[found] = min(longest[found], high)
        group[i], place[found] = found, now
        size[found] += 1
        following[found], preceding[found] = head[now], -1
        if head[now] >= 0:
            preceding[head[now]] = found
        head[now] = found
    return group, size[:count].copy(), shortest[:count].copy(), longest[:count].copy()


@jit
def _best(
    first: int,
    following: Ints,
    prompt: float,
    low: float,
    high: float,
    size: Ints,
    shortest: Floats,
    longest: Floats,
    typical: Floats,
) -> int:
    """Find the group of this set that fits: of like prompt length, then least used, then oldest."""
    best, best_rank = -1, (2, 0, 0)
    g = first
    while g >= 0:
        if shortest[g] <= high and low <= longest[g]:
            unlike = 1 if abs(prompt - typical[g]) > SAME_LENGTH * typical[g] else 0
            rank = (unlike, size[g], g)
            if rank < best_rank:
                best, best_rank = g, rank
        g = following[g]
    return best


@jit
def _nearest(
    sets: Words,
    members: Ints,
    place: Ints,
    hit: int,
    count: int,
    low: float,
    high: float,
    shortest: Floats,
    longest: Floats,
) -> int:
    """Find, among the latest groups, one that visited all the instances of set `hit` and the fewest others."""
    best, fewest = -1, sets.shape[1] * WORD + 1
    for g in range(max(0, count - WINDOW), count):
        if shortest[g] > high or low > longest[g]:
            continue
        extra = members[place[g]] - members[hit]
        if 0 <= extra < fewest and _holds(sets, place[g], hit):
            best, fewest = g, extra
    return best


@jit
def _holds(sets: Words, outer: int, inner: int) -> bool:
    lacking = np.uint64(0)
    for w in range(sets.shape[1]):
        lacking |= sets[inner, w] & ~sets[outer, w]
    return bool(lacking == 0)


@jit
def _joined(sets: Words, place: int, chosen: int, otherwise: int) -> int:
    """Number the set `place` with `chosen` added; a set that no request ever meets keeps `otherwise`."""
    wanted = sets[place].copy()
    if chosen >= 0:
        wanted[chosen // WORD] |= np.uint64(1) << np.uint64(chosen % WORD)
    low, high = 0, len(sets)  # the sets are sorted by their words
    while low < high:
        middle = (low + high) // 2
        if _precedes(sets[middle], wanted):
            low = middle + 1
        else:
            high = middle
    return low if low < len(sets) and (sets[low] == wanted).all() else otherwise


@jit
def _precedes(one: Words, other: Words) -> bool:
    for w in range(len(one)):
        if one[w] != other[w]:
            return bool(one[w] < other[w])
    return False


@jit
def _unlink(g: int, place: int, head: Ints, following: Ints, preceding: Ints) -> None:
    if preceding[g] >= 0:
        following[preceding[g]] = following[g]
    else:
        head[place] = following[g]
    if following[g] >= 0:
        preceding[following[g]] = preceding[g]
