"""A workload as records of a Mooncake trace."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from lodestar.data.errors import ConfigError
from lodestar.data.formats.mooncake import BLOCK_SIZES, FITTING_SHARE
from lodestar.data.log import Ints, Workload
from lodestar.data.workloads.lists import list_column

__all__ = ["mooncake_notes", "mooncake_records"]


def mooncake_notes(workload: Workload) -> tuple[str, ...]:
    """Say what a Mooncake trace cannot hold of a workload; raise where it would be read with another block size."""
    _require_readable(workload)
    notes = []
    rounded = int((_milliseconds(workload) / 1e3 != workload.arrived_at_s).sum())
    if rounded:
        notes.append(f"{rounded} arrivals are rounded to whole milliseconds, as the format has them")
    unlisted = int((workload.prompt_tokens // workload.block_tokens - np.diff(workload.block_offsets)).sum())
    if unlisted:
        notes.append(f"{unlisted} whole blocks that the workload does not list are written as shared with nobody")
    if workload.session is not None:
        notes.append("which requests belong to one conversation is left out, which the format does not hold")
    return tuple(notes)


def mooncake_records(workload: Workload, rows: int) -> Iterator[pl.DataFrame]:
    """Make frames of so many records; ids of blocks that the workload does not list count on from its own."""
    next_id = int(workload.block_ids.max(initial=-1)) + 1
    timestamp = _milliseconds(workload)
    for first in range(0, len(workload), rows):
        part = slice(first, first + rows)
        hash_ids, next_id = _hash_ids(workload, first, rows, next_id)
        yield pl.DataFrame(
            {
                "timestamp": timestamp[part],
                "input_length": workload.prompt_tokens[part],
                "output_length": workload.output_tokens[part],
                "hash_ids": hash_ids,
            }
        )


def _milliseconds(workload: Workload) -> Ints:
    return np.rint(workload.arrived_at_s * 1e3).astype(np.int64)


def _hash_ids(workload: Workload, first: int, rows: int, next_id: int) -> tuple[pl.Series, int]:
    """List every block of some requests, with fresh ids for those that the workload does not list."""
    offsets = workload.block_offsets[first : first + rows + 1]
    listed = np.diff(offsets)
    count = -(-workload.prompt_tokens[first : first + rows] // workload.block_tokens)
    ends = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    known = np.arange(ends[-1]) - np.repeat(ends[:-1], count) < np.repeat(listed, count)
    ids = np.empty(ends[-1], dtype=np.int64)
    ids[known] = workload.block_ids[offsets[0] : offsets[-1]]
    fresh = int((~known).sum())
    ids[~known] = np.arange(next_id, next_id + fresh)
    return list_column(ids, ends), next_id + fresh


def _require_readable(workload: Workload) -> None:
    """Check that a reader, who finds the block size out from the first records, finds the right one."""
    for records in (1_000, 10_000, 100_000, len(workload)):
        size = _size_read(workload.prompt_tokens[:records], workload.block_tokens)
        if size != workload.block_tokens:
            found = f"would be read as {size}" if size else f"is none of {', '.join(map(str, sorted(BLOCK_SIZES)))}"
            raise ConfigError(
                f"block_tokens {workload.block_tokens} {found} in a Mooncake trace, which does not name it; "
                "expected one that can be told from the lengths. Write --format native"
            )


def _size_read(prompt_tokens: Ints, block_tokens: int) -> int | None:
    """Return the first size that fits nearly all prompts whose blocks have `block_tokens`, as the reader does."""
    count = -(-prompt_tokens // block_tokens)
    fitting = (size for size in BLOCK_SIZES if (-(-prompt_tokens // size) == count).mean() >= FITTING_SHARE)
    return next(fitting, None)
