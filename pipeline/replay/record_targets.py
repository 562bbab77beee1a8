"""Which files the recording of a replay goes into."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lodestar.data.errors import ConfigError
from lodestar.data.record_files import suffix_of

__all__ = ["Target", "record_targets"]

_POLICY: Final = "{policy}"
_SEED: Final = "{seed}"


@dataclass(frozen=True, slots=True)
class Target:
    """One file to write: the replay of one policy under one seed."""

    path: Path
    policy: str
    seed: int


def record_targets(to: str, policies: Sequence[str], seeds: Sequence[int]) -> list[Target]:
    """Say which files ``--record`` writes.

    A directory gets ``POLICY.parquet`` for each policy under the first seed. A file has the replay of one policy under
    the first seed. Either may hold ``{policy}``, and ``{seed}`` for one file a seed.

    >>> [str(target.path) for target in record_targets("logs/{policy}-{seed}.jsonl", ["random"], range(2))]
    ['logs/random-0.jsonl', 'logs/random-1.jsonl']
    """
    pattern = to if _names_a_file(to) else str(Path(to) / f"{_POLICY}.parquet")
    odd = set(re.findall(r"\{.*?\}", pattern)) - {_POLICY, _SEED}
    if odd:
        raise ConfigError(f"--record {to}: {min(odd)} is not known; expected {_POLICY} or {_SEED}. Correct it")
    suffix_of(Path(pattern))
    if len(policies) > 1 and _POLICY not in pattern:
        raise ConfigError(
            f"--record {to} is one file for {len(policies)} policies; expected one file each. Name a directory, or put "
            f"{_POLICY} into the name"
        )
    targets = [
        Target(Path(pattern.replace(_POLICY, _file_name(name)).replace(_SEED, str(seed))), name, seed)
        for name in policies
        for seed in (seeds if _SEED in pattern else seeds[:1])
    ]
    if len({target.path for target in targets}) < len(targets):
        raise ConfigError(f"--record {to}: two policies have files of one name; expected one each. Record them apart")
    return targets


def _file_name(policy: str) -> str:
    """Return the name without its folder, and without what file names do not like."""
    return re.sub(r"[^\w.-]+", "-", policy.rpartition("/")[2])


def _names_a_file(to: str) -> bool:
    return Path(to).suffix != "" and not to.endswith("/") and not Path(to).is_dir()
