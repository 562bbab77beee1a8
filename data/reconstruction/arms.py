"""The same requests under several routers: datasets that are arms of one stream, and their rows side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import duckdb
import numpy as np

from lodestar.data import schema as s
from lodestar.data.log import Ints, RequestLog
from lodestar.data.reconstruction.prefix_groups import Arm, PrefixGroups, infer_groups_jointly, reproduced
from lodestar.data.store import load_log

__all__ = ["aligned", "arms_of", "held_out", "measured_arms_of", "own_arm", "paired_rows", "same_choices"]

SAME: Final = 0.95  # of the requests of both datasets have the same id and the same prompt tokens
BY_CHANCE: Final = 0.5  # above this share of equal prompts, ids that are mere numbers prove nothing
INVERTED: Final = 0.1  # of the neighbours may come in another order
SAME_CHOICES: Final = 0.99  # of the choices agree, under other names: one arm, logged twice


def arms_of(con: duckdb.DuckDBPyConnection, log: RequestLog, withheld: Sequence[RequestLog] = ()) -> list[RequestLog]:
    """Find the datasets of the store that hold the requests of `log` under another router, by name.

    None are looked for where `log` names its prefix blocks or no hits. Requests are the same by id and prompt tokens.
    Arms `withheld`, under whatever name, are left out: a prediction must not know what it is compared with.
    """
    if log.block_tokens is not None or not (log.snapshot[s.HIT_RATIO] > 0).any():
        return []
    return _arms(con, log, withheld, lambda other: bool((other.snapshot[s.HIT_RATIO] > 0).any()))


def measured_arms_of(con: duckdb.DuckDBPyConnection, log: RequestLog) -> list[RequestLog]:
    """Find the datasets of the store that hold the requests of `log` under another router, with choices and TTFT.

    Their choices can be replayed, and what comes out compared with what they measured.
    """
    return _arms(con, log, (), lambda other: bool((other.ttft_ms > 0).any()))


def _arms(
    con: duckdb.DuckDBPyConnection, log: RequestLog, withheld: Sequence[RequestLog], tells: Callable[[RequestLog], bool]
) -> list[RequestLog]:
    """Find the same requests under other routers, each arm once, where what is asked of it is there."""
    rows = con.execute(_COMMON, [log.dataset] * 3).fetchall()
    names = [name for name, common, size in rows if common >= SAME * max(size, len(log))]
    arms: list[RequestLog] = []
    if _equal_by_chance(log.prompt_tokens) > BY_CHANCE:
        return arms
    for other in (load_log(con, name) for name in names):
        _, there = paired_rows(log, other)
        in_order = np.mean(np.diff(there) < 0) <= INVERTED if len(there) > 1 else True
        told = tells(other) and bool((other.chosen >= 0).any())
        if told and in_order and not any(same_choices(known, other) for known in (log, *withheld, *arms)):
            arms.append(other)
    return arms


_COMMON: Final = """
    SELECT r.dataset, count(*) FILTER (m.request_id IS NOT NULL), count(*)
    FROM requests r LEFT JOIN (FROM requests WHERE dataset = ?) m USING (request_id, prompt_tokens)
    WHERE r.dataset <> ? AND r.dataset IN (
        SELECT dataset FROM requests JOIN candidates USING (request_index) WHERE dataset <> ?)
    GROUP BY r.dataset ORDER BY r.dataset
"""


def own_arm(log: RequestLog) -> Arm:
    """Return what the router of this log believed cached, and its choices."""
    return Arm(log.snapshot[s.HIT_RATIO], log.chosen)


def aligned(log: RequestLog, other: RequestLog) -> Arm:
    """Return what another router believed and chose, in the rows of `log`; unknown where it has no such request."""
    row, there = paired_rows(log, other)
    hit_ratio, chosen = np.full((len(log), len(other.instances)), np.nan), np.full(len(log), -1, dtype=np.int64)
    hit_ratio[row], chosen[row] = other.snapshot[s.HIT_RATIO][there], other.chosen[there]
    return Arm(hit_ratio, chosen)


def held_out(prompt_tokens: Ints, arms: Sequence[Arm], block_tokens: int) -> float:
    """Infer the groups from all arms but the first: the share of its requests whose hits they then reproduce.

    The first arm had no part in the groups, so this says how far they are the true ones.
    """
    groups: PrefixGroups = infer_groups_jointly(prompt_tokens, arms[1:], block_tokens)
    return reproduced(groups, block_tokens, prompt_tokens, arms[0])


def paired_rows(log: RequestLog, other: RequestLog) -> tuple[Ints, Ints]:
    """Return the rows of two datasets that are the same request, by id and prompt tokens."""
    place = {key: i for i, key in enumerate(zip(other.request_id, other.prompt_tokens.tolist(), strict=True))}
    there = [place.get(key, -1) for key in zip(log.request_id, log.prompt_tokens.tolist(), strict=True)]
    found = np.array(there, dtype=np.int64)
    return np.flatnonzero(found >= 0), found[found >= 0]


def _equal_by_chance(prompt_tokens: Ints) -> float:
    share = np.unique(prompt_tokens, return_counts=True)[1] / max(len(prompt_tokens), 1)
    return float((share**2).sum())


def same_choices(log: RequestLog, other: RequestLog) -> bool:
    """Say whether two datasets are one arm, logged twice: their choices agree, under whatever names."""
    row, there = paired_rows(log, other)
    pairs = np.zeros((len(log.instances) + 1, len(other.instances) + 1), dtype=np.int64)
    np.add.at(pairs, (log.chosen[row], other.chosen[there]), 1)
    return bool(len(row) and min(pairs.max(axis=1).sum(), pairs.max(axis=0).sum()) >= SAME_CHOICES * len(row))
