"""The numbers of a dataset's instances: given in the order in which they are first seen, and kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import duckdb
import numpy as np
import polars as pl

from lodestar.data import schema as s
from lodestar.data.log import Ints

__all__ = ["Instances"]


@dataclass(slots=True)
class Instances:
    """Names and their numbers, as the store has them and as a source adds to them."""

    con: duckdb.DuckDBPyConnection
    dataset: str
    number: dict[str, int]
    gpu: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, con: duckdb.DuckDBPyConnection, dataset: str) -> Instances:
        """Read those that the store knows."""
        known = con.execute(
            "SELECT instance, instance_index, gpu FROM instances WHERE dataset = ?", [dataset]
        ).fetchall()
        return cls(con, dataset, {name: k for name, k, _ in known}, {name: gpu for name, _, gpu in known if gpu})

    def numbers(self, names: pl.Series) -> Ints:
        """Return the number of each name, new ones included; -1 where there is no name."""
        if names.null_count() == len(names):
            return np.full(len(names), -1)
        category = names.cast(pl.Categorical)
        distinct = category.drop_nulls().unique()
        text = distinct.cast(pl.String).to_list()
        for name in sorted(set(text) - self.number.keys()):
            self.number[name] = len(self.number)
        code = distinct.to_physical().cast(pl.Int64).to_numpy()
        table = np.full(int(code.max()) + 2, -1)
        table[code] = [self.number[name] for name in text]
        found: Ints = table[category.to_physical().cast(pl.Int64).fill_null(len(table) - 1).to_numpy()]
        return found

    def full_name(self, short: str | None) -> str | None:
        """Return the one known instance of which this is the end of the name, as engines name their own logs.

        A pod is ``deepseek-66f657bd76-v45v6`` to the gateway, and its log file ``66f657bd76-v45v6``.
        """
        if short is None or short in self.number:
            return short
        longer = [name for name in self.number if name.endswith(f"-{short}")]
        return longer[0] if len(longer) == 1 else short

    def learn(self, gpu: Mapping[str, str]) -> None:
        """Note the GPU of instances; what was known before stays."""
        self.gpu = {**gpu, **self.gpu}

    def store(self) -> None:
        """Write them to the store."""
        rows = [(self.dataset, k, name, self.gpu.get(name)) for name, k in self.number.items()]
        self.con.execute("DELETE FROM instances WHERE dataset = ?", [self.dataset])
        if rows:
            frame = pl.DataFrame(rows, schema=[s.DATASET, s.INSTANCE_INDEX, s.INSTANCE, s.GPU], orient="row")
            self.con.register("named", frame.with_columns(pl.col(s.GPU).cast(pl.String)).to_arrow())
            self.con.execute("INSERT INTO instances BY NAME FROM named")
            self.con.unregister("named")
