"""When a model is to learn again: after so many new rows, or sooner where its errors drift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from lodestar.data.errors import ConfigError
from lodestar.models.fit import MIN_ROWS
from lodestar.models.refresh.recent import Recent
from lodestar.models.registry.gate_evidence import MIN_NEWEST
from lodestar.models.rows import Rows
from lodestar.models.uncertainty.drift import Adwin

__all__ = ["EVERY_ROWS", "MEASURED_SHARE", "Due", "due", "enough", "parted", "require_every"]

EVERY_ROWS: Final = 250
HEARD_ROWS: Final = 2000  # before those that wait: what errors were like
MEASURED_SHARE: Final = 0.3  # of the new rows, the newest: what measures a refit before it learns from them too


@dataclass(frozen=True, slots=True)
class Due:
    """Whether to learn now.

    Attributes:
        now: whether.
        reason: in words.
        drifted: newest rows of the regime that a drift began; 0 where none was found.
    """

    now: bool
    reason: str
    drifted: int = 0


def require_every(rows: int) -> None:
    """Refuse a number of rows that no update could wait for."""
    if rows < 1:
        raise ConfigError(
            f"--every {rows}: no update can wait for that; expected 1 row or more. Leave it out for {EVERY_ROWS}"
        )


def parted(rows: Rows) -> tuple[Rows, Rows]:
    """Split new rows into those to learn from and the newest, which measure; see `Rows.split_share`."""
    return rows.split_share(1.0 - MEASURED_SHARE)


def enough(rows: Rows) -> bool:
    """Say whether the rows can both teach and measure; those that were cut off, as in an outage, do neither alone."""
    training, newest = (int((~part.censored).sum()) for part in parted(rows))
    return training >= MIN_ROWS and newest >= MIN_NEWEST


def due(recent: Recent, every: int, listens_from: int) -> Due:
    """Decide by the rows that wait, and by the log residuals of what was predicted.

    A drift counts if it shows in the rows that wait (before, other models made the errors) and if errors grew: that
    they shrink is what a refit is for.

    Args:
        recent: newest rows.
        every: rows after which it is time in any case.
        listens_from: number of the first request whose error may tell of drift.
    """
    pending = recent.pending
    drifted = _drifted(recent, listens_from)
    told = f"{len(pending)} new rows"
    if not enough(pending):
        need = f"{MIN_ROWS} to learn from and {MIN_NEWEST} to measure on are needed"
        return Due(False, f"{told} are too few ({need})", drifted)
    if drifted:
        return Due(True, f"errors drifted {drifted} rows ago", drifted)
    if len(pending) >= every:
        return Due(True, told)
    return Due(False, f"{told} of {every} that an update waits for")


def _drifted(recent: Recent, listens_from: int) -> int:
    """Return how many of the newest rows ADWIN holds together, if it found a change while it heard those that wait.

    It hears the errors of rows that are `told`; the newest rows since the first of the new regime are counted with all
    between, cut off or not.
    """
    told = recent.only(recent.told & (recent.rows.request_index >= listens_from))
    heard = told.last(int((~told.learned).sum()) + HEARD_ROWS)
    adwin, errors = Adwin(), heard.log_residuals()
    changed = np.array([adwin.update(float(error)) for error in errors], dtype=np.bool_)
    if not (changed & ~heard.learned).any():
        return 0
    since = len(heard) - adwin.width
    if np.abs(errors[since:].mean()) <= np.abs(errors[:since].mean()):
        return 0
    return int((recent.rows.request_index >= heard.rows.request_index[since]).sum())
