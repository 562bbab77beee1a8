"""What is known of a source before it is read, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from lodestar.data.reading import Reading

__all__ = ["Facts", "Tally"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a source before it is read.

    Attributes:
        source_id: names its content within the store.
        file: as the user named it.
        sha256: of the content as it lies on disk.
        format: its name.
        size: in bytes, as it lies on disk.
        licence: of the log, where one lies beside it.
    """

    source_id: str
    file: str
    sha256: str
    format: str
    size: int
    licence: str | None = None


@dataclass(slots=True)
class Tally:
    """What became of a source so far."""

    facts: Facts
    rows: int = 0
    rejected: int = 0
    notes: list[str] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)
    version: str | None = None
    clock: str | None = None
    replaced: str | None = None

    @property
    def stored(self) -> int:
        """Rows in the tables; those of a companion are part of the rows that they were joined to."""
        return self.rows - self.rejected

    def add(self, reading: Reading, rejected: int) -> None:
        """Count a part."""
        self.rows += reading.lines
        self.rejected += rejected
        self.version, self.clock = self.version or reading.version, self.clock or reading.clock
        self.notes += [note for note in reading.notes if note not in self.notes]
        for said, count in reading.counted.items():
            self.counted[said] = self.counted.get(said, 0) + count

    def sentences(self) -> tuple[str, ...]:
        """Return the notes, those that count with their number."""
        return (*self.notes, *(f"{count} {said}" for said, count in self.counted.items() if count))
