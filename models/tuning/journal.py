"""Optuna's journal of studies, made to survive the death of a process that writes it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from lodestar.models.tuning.locks import locked

__all__ = ["open_study", "trials_of"]


def open_study(journal: Path, name: str) -> optuna.Study:
    """Open the study `name` of the journal file, or make it; its value is made as small as possible."""
    backend = JournalFileBackend(str(journal), _SystemLock(journal))
    return optuna.create_study(
        study_name=name, storage=JournalStorage(backend), direction="minimize", load_if_exists=True
    )


def trials_of(study: optuna.Study, *states: optuna.trial.TrialState) -> list[optuna.trial.FrozenTrial]:
    """Return the trials in any of these states, as the journal has them now."""
    return study.get_trials(deepcopy=False, states=states)


class _SystemLock(JournalFileOpenLock):
    """Let one process append at a time.

    Optuna's own locks are files that a killed process leaves behind, and that others wait half a minute for. And a
    process that is killed while it appends can leave half a line, to which the next would append: the journal could
    never be read again. So the half line is cut off first; what it should have told was not yet told to anyone.
    """

    def __init__(self, journal: Path) -> None:
        super().__init__(str(journal))
        self._journal, self._held = journal, list[IO[Any]]()

    def acquire(self) -> bool:
        self._held.append(locked(self._journal.with_name(f"{self._journal.name}.flock")))
        _cut_half_line(self._journal)
        return True

    def release(self) -> None:
        self._held.pop().close()


def _cut_half_line(journal: Path) -> None:
    with journal.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        if end == 0:
            return
        file.seek(end - 1)
        if file.read(1) != b"\n":
            file.truncate(_end_of_last_line(file, end))


def _end_of_last_line(file: IO[bytes], end: int) -> int:
    step = 1 << 16
    while end > 0:
        start = max(end - step, 0)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
