"""The search behind `prefix_groups`: which group of earlier requests does each request belong to?

Sets of instances are numbers of rows in `sets`, one bit an instance, so that a group is found by the set it visited.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar.data.jit import jit
from lodestar.data.log import Floats, Ints

__all__ = ["Bools", "Wanted", "Words", "assign", "packed"]

SAME_LENGTH: Final = 0.03  # prompts of one group differ by less than this, mostly
SAME_HITS: Final = 0.005  # of the prompt; logs round to whole percent
MOSTLY: Final = 0.9  # of the requests that joined a group so far had like lengths: then length counts before visits
WINDOW: Final = 4096  # groups looked back on where none fits exactly
TWINS: Final = 512  # latest groups looked at among those that visited the same instances
WORD: Final = 64  # instances in one word of a set
PAIRS, QUARTERS, EIGHTHS, BYTES = (np.uint64(int(b * 8, 16)) for b in ("55", "33", "0f", "01"))  # to count bits with

Bools = NDArray[np.bool_]
Words = NDArray[np.uint64]


def packed(rows: Bools) -> Words:
    """Write every row as words, one bit an instance, so that sets compare a word at a time.

    >>> packed(np.array([[True, False, True]])).tolist()
    [[5]]
    """
    n, m = rows.shape
    padded = np.zeros((n, -(-max(m, 1) // WORD) * WORD), dtype=np.bool_)
    padded[:, :m] = rows
    return np.packbits(padded, axis=1, bitorder="little").view(np.uint64)


class Wanted(NamedTuple):
    """What each request says of its group.

    Attributes:
        prompt: tokens.
        lowest: bound of the shared tokens by its hits; 0 where it has none.
        highest: the same from above; infinite where it has none.
        hit_tokens: its own, shallowest hit; NaN where it has none.
        parent: the group of the level above that it is in.
        told: instances of which its hits are known, as words.
        added: the chosen instances, as words.
        before: number of the set on which it hits.
        after: number of that set with the chosen instances.
    """

    prompt: Floats
    lowest: Floats
    highest: Floats
    hit_tokens: Floats
    parent: Ints
    told: Words
    added: Words
    before: Ints
    after: Ints


class _Groups(NamedTuple):
    """What is known of each group so far."""

    size: Ints
    place: Ints
    members: Ints
    parent: Ints
    visited: Words
    shortest: Floats
    longest: Floats
    typical: Floats
    depth: Floats


@jit
def assign(wanted: Wanted, sets: Words) -> tuple[Ints, Ints]:
    """Give each request, in dispatch order, a group; return the groups and their sizes.

    Args:
        wanted: what each request says of its group.
        sets: sorted sets of instances.
    """
    n = len(wanted.prompt)
    group, count = np.zeros(n, dtype=np.int64), 0
    whole, real = np.zeros((4, n), dtype=np.int64), np.full((4, n), np.nan)
    groups = _Groups(
        whole[0],
        whole[1],
        whole[2],
        whole[3],
        np.zeros((n, sets.shape[1]), dtype=np.uint64),
        real[0],
        real[1],
        real[2],
        real[3],
    )
    head = np.full(len(sets), -1)  # per set of instances: its first group; the groups of a set form a linked list
    following, preceding = np.full(n, -1), np.full(n, -1)
    joined, alike = 20, 20
    for i in range(n):
        found, now = -1, wanted.after[i]
        low, high, prompt = wanted.lowest[i], min(wanted.highest[i], wanted.prompt[i]), wanted.prompt[i]
        if _members(sets[wanted.before[i]]) > 0:
            if _members(~wanted.told[i]) == 0:
                found = _best(wanted, i, groups, head[wanted.before[i]], following)
            by_length = alike > MOSTLY * joined
            if found < 0 or (by_length and _unlike(prompt, groups.typical[found])):
                near = _nearest(wanted, i, groups, sets, count, by_length)
                if near >= 0 and (found < 0 or not _unlike(prompt, groups.typical[near])):
                    found, now = near, _joined(sets, groups.place[near], wanted.added[i], now)
        if found < 0:
            found, count = count, count + 1
            groups.shortest[found], groups.longest[found], groups.typical[found] = low, high, prompt
            groups.parent[found] = wanted.parent[i]
        else:
            joined += 1
            alike += 0 if _unlike(prompt, groups.typical[found]) else 1
            _unlink(found, groups.place[found], head, following, preceding)
            groups.shortest[found] = max(groups.shortest[found], low)
            groups.longest[found] = min(groups.longest[found], high)
        group[i], groups.place[found], groups.members[found] = found, now, _members(sets[now])
        groups.visited[found] = sets[now]
        groups.size[found] += 1
        groups.depth[found] = np.fmin(groups.depth[found], wanted.hit_tokens[i])
        following[found], preceding[found] = head[now], -1
        if head[now] >= 0:
            preceding[head[now]] = found
        head[now] = found
    return group, groups.size[:count].copy()


@jit
def _best(wanted: Wanted, i: int, groups: _Groups, first: int, following: Ints) -> int:
    """Find the group of this set that fits: of like prompt length, then of like hits, then least used, then oldest."""
    best, best_rank = -1, (2, 0, 0, 0)
    g, looked = first, 0
    while g >= 0 and looked < TWINS:
        looked += 1
        if _fits(wanted, i, groups, g):
            unlike = 1 if _unlike(wanted.prompt[i], groups.typical[g]) else 0
            off = 1 if abs(groups.depth[g] - wanted.hit_tokens[i]) > SAME_HITS * wanted.prompt[i] else 0
            rank = (unlike, off, groups.size[g], g)
            if rank < best_rank:
                best, best_rank = g, rank
        g = following[g]
    return best


@jit
def _fits(wanted: Wanted, i: int, groups: _Groups, g: int) -> bool:
    """Say whether a request's hits allow the shared length of a group, within the same parent."""
    high = min(wanted.highest[i], wanted.prompt[i])
    overlap = groups.shortest[g] <= high and wanted.lowest[i] <= groups.longest[g]
    return bool(overlap and groups.parent[g] == wanted.parent[i])


@jit
def _unlike(prompt: float, typical: float) -> bool:
    return abs(prompt - typical) > SAME_LENGTH * typical


@jit
def _nearest(wanted: Wanted, i: int, groups: _Groups, sets: Words, count: int, by_length: bool) -> int:
    """Find, among the latest groups, the one whose visits explain most hits and the fewest others.

    A group that is wrong about more than half as many instances as were hit is none.
    """
    hit, told = sets[wanted.before[i]], wanted.told[i]
    members = _members(hit)
    half = (members + 1) // 2
    all_told = _members(~told) == 0
    best, best_rank = -1, (half + 2, 0, 0)
    for g in range(max(0, count - WINDOW), count):
        if all_told and abs(groups.members[g] - members) > half:
            continue
        wrong = 0
        for w in range(len(hit)):
            wrong += _bits((hit[w] ^ groups.visited[g, w]) & told[w])
        if wrong > half or not _fits(wanted, i, groups, g):
            continue
        lost = 0
        for w in range(len(hit)):
            lost += _bits(hit[w] & ~groups.visited[g, w] & told[w])
        unlike = 1 if _unlike(wanted.prompt[i], groups.typical[g]) else 0
        rank = (unlike, lost, wrong) if by_length else (lost, unlike, wrong)
        if lost < half and rank < best_rank:
            best, best_rank = g, rank
    return best


@jit
def _bits(word: np.uint64) -> int:
    word = word - ((word >> np.uint64(1)) & PAIRS)
    word = (word & QUARTERS) + ((word >> np.uint64(2)) & QUARTERS)
    return int((((word + (word >> np.uint64(4))) & EIGHTHS) * BYTES) >> np.uint64(56))


@jit
def _members(words: Words) -> int:
    count = 0
    for word in words:
        count += _bits(word)
    return count


@jit
def _joined(sets: Words, place: int, added: Words, otherwise: int) -> int:
    """Number the set `place` with the chosen instances; a set that no request ever meets keeps `otherwise`."""
    wanted = sets[place] | added
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
