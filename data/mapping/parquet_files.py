"""Parquet to columns of text by a mapping file: columns by name, fields of structs by their dotted paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from polars.datatypes import DataTypeClass

from lodestar.data import schema as s
from lodestar.data.errors import DataError
from lodestar.data.mapping.recipe import Recipe
from lodestar.data.mapping.text import TextPart, missing, wide_candidates, wide_columns
from lodestar.data.reading import LINE, no_rejects
from lodestar.data.sources.source import Source, printable

__all__ = ["parquet_text"]

BATCH_ROWS: Final = 1 << 16
LISTED: Final = "listed"


def parquet_text(source: Source, recipe: Recipe) -> Iterator[TextPart]:
    """Read a Parquet source, some rows at a time."""
    with source.on_disk() as path:
        try:
            yield from _batches(pq.ParquetFile(path), recipe)
        except (pa.ArrowException, OSError, pl.exceptions.PolarsError) as error:
            said = next(iter(str(error).splitlines()), type(error).__name__)[:200]
            raise DataError(f"damaged Parquet, or an odd one ({said}); expected a table. Check the file") from error


def _batches(file: pq.ParquetFile, recipe: Recipe) -> Iterator[TextPart]:
    header = file.schema_arrow.names
    if len(set(header)) < len(header):
        raise DataError(f"a column is there twice; found {printable(', '.join(header))[:300]}. Remove one")
    wide, first = wide_columns(header, recipe), 1
    for batch in file.iter_batches(batch_size=BATCH_ROWS):
        batch.validate(full=True)  # Polars trusts that text is UTF-8
        frame = pl.from_arrow(batch)
        assert isinstance(frame, pl.DataFrame)
        frame = frame.with_columns(pl.int_range(first, first + len(frame), dtype=pl.Int64).alias(LINE))
        rows = frame.select(LINE, *(_texts(frame, column.column).alias(f) for f, column in recipe.fields.items()))
        names = [name for of in wide.values() for name in of.values()]
        columns = frame.select(LINE, *(_texts(frame, name).alias(name) for name in names))
        candidates = (
            wide_candidates(columns, wide, recipe) if recipe.candidate_list is None else _exploded(frame, recipe)
        )
        yield TextPart(rows, candidates, no_rejects(), len(frame), _row_texts(frame, first))
        first += len(frame)


def _row_texts(frame: pl.DataFrame, first: int) -> Callable[[pl.Series], list[str | None]]:
    return lambda lines: [str(frame.row(line - first, named=True))[:1000] for line in lines]


def _exploded(frame: pl.DataFrame, recipe: Recipe) -> pl.DataFrame:
    listed, kind = _nested(frame.schema, recipe.candidate_list or "")
    if not isinstance(kind, pl.List) or not isinstance(kind.inner, pl.Struct):
        raise DataError(
            f"column {recipe.candidate_list!r} holds {kind}; expected a list of objects. Correct the mapping"
        )
    flat = frame.select(LINE, listed.alias(LISTED)).explode(LISTED).filter(pl.col(LISTED).is_not_null()).unnest(LISTED)
    fields = {field: column.column for field, column in recipe.candidate_fields.items()}
    fields = {s.INSTANCE: recipe.candidate_name, **fields}
    return flat.select(LINE, *(_texts(flat, name).alias(field) for field, name in fields.items()))


def _nested(schema: Mapping[str, pl.DataType], path: str) -> tuple[pl.Expr, pl.DataType | DataTypeClass]:
    """Find a column by its name, or a field within a struct by its dotted path."""
    name = path if path in schema else next((each for each in schema if path.startswith(f"{each}.")), None)
    if name is None:
        raise missing(path, list(schema))
    value, rest = pl.col(name), path[len(name) + 1 :]
    kind: pl.DataType | DataTypeClass = schema[name]
    while rest:
        inner = dict(kind.to_schema()) if isinstance(kind, pl.Struct) else {}
        name = rest if rest in inner else rest.split(".", 1)[0]
        if name not in inner:
            raise missing(path, [f"{path.removesuffix(rest)}{each}" for each in inner] or list(schema))
        value, kind, rest = value.struct.field(name), inner[name], rest[len(name) + 1 :]
    return value, kind


def _texts(frame: pl.DataFrame, path: str) -> pl.Expr:
    value, kind = _nested(frame.schema, path)
    if isinstance(kind, pl.Datetime):
        in_utc = value.dt.convert_time_zone("UTC") if kind.time_zone else value
        return in_utc.dt.strftime("%Y-%m-%d %H:%M:%S%.9f" + ("+00:00" if kind.time_zone else ""))
    if isinstance(kind, pl.List):
        return value.cast(pl.List(pl.String)).list.join(",")
    if isinstance(kind, pl.Struct):
        return value.struct.json_encode()
    if isinstance(kind, pl.Binary | pl.Object | pl.Array):
        raise DataError(f"column {path!r} holds {kind}; expected numbers or texts. Map another")
    return value.cast(pl.String)
