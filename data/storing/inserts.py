"""Frames into tables, gathered to whole row groups: DuckDB stores these at once, and smaller ones twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import duckdb
import polars as pl

from lodestar.data import schema as s

__all__ = ["Inserts"]

ROW_GROUP: Final = 122_880


@dataclass(slots=True)
class Inserts:
    """What is on its way into the tables of a dataset."""

    con: duckdb.DuckDBPyConnection
    dataset: str
    waiting: dict[str, list[pl.DataFrame]] = field(default_factory=dict)

    def add(self, table: str, frame: pl.DataFrame) -> None:
        """Take the columns of a table; every frame of one table has the same. Those without a value stay NULL."""
        if frame.is_empty():
            return
        known = [name for name in s.TABLES[table] if name in frame.columns]
        frames = self.waiting.setdefault(table, [])
        frames.append(frame.select(known))
        if sum(map(len, frames)) >= ROW_GROUP:
            whole = pl.concat(frames, rechunk=True)
            end = len(whole) // ROW_GROUP * ROW_GROUP
            self._write(table, whole[:end])
            self.waiting[table] = [whole[end:]]

    def flush(self) -> None:
        """Write all that is left."""
        for table, frames in self.waiting.items():
            self._write(table, pl.concat(frames))
        self.waiting.clear()

    def _write(self, table: str, frame: pl.DataFrame) -> None:
        if frame.is_empty():
            return
        told = [name for name in frame.columns if frame[name].null_count() < len(frame)]
        columns = ", ".join(f'"{name}"' for name in told)
        # DuckDB finds the variable by its name; a view of it would keep it in memory until the transaction ends.
        incoming = frame.select(told).to_arrow()  # noqa: F841
        if s.DATASET in s.TABLES[table]:
            query = f"INSERT INTO {table} BY NAME SELECT ? AS {s.DATASET}, {columns} FROM incoming"
            self.con.execute(query, [self.dataset])
        else:
            self.con.execute(f"INSERT INTO {table} BY NAME SELECT {columns} FROM incoming")
