"""JSON Lines to typed columns or to records, fast for good lines, with the reason for every bad one."""

from __future__ import annotations

import io
import json
import math
import threading
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import jsonschema
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.json as paj

from lodestar.data.parsing.json_bulk import FEWEST_BYTES, BulkParser
from lodestar.data.reading import LINE, no_rejects, rejects_of
from lodestar.data.reasons import Reason
from lodestar.data.sources.blocks import Block
from lodestar.data.storing.prefetch import mapped_ahead

__all__ = ["Decoder", "Refused", "load_json", "records"]

PARSE_BYTES: Final = 1 << 22
#: The rule of a JSON Schema that a record breaks → why it is refused; any other rule is about its value.
REASONS: Final = {"required": Reason.MISSING, "type": Reason.WRONG_TYPE}


class Refused(Exception):
    """Why a text is no record: a reason and a sentence."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class Decoded(NamedTuple):
    """The columns of good lines with `line`, and the rejects of the others."""

    columns: pa.Table
    rejects: pl.DataFrame
    lines: int


class Decoder:
    """Decodes blocks of JSON objects, one a line, into typed columns, whole or NULL where a key is absent.

    Arrow's parser is fast and takes no value of another type, but stops at the first bad line: that line is found by
    halving, and `schema`, a JSON Schema, gives its reason. Keys that `columns` does not name are not looked at.
    """

    def __init__(self, columns: pa.Schema, schema: dict[str, Any]) -> None:
        self._columns, self._present = columns, columns
        self._validator = jsonschema.Draft202012Validator(schema)
        self._others = "error"
        self._bulk = threading.local()

    def over(self, blocks: Iterator[Block]) -> Iterator[tuple[Block, Decoded]]:
        """Decode blocks in order, the next ones in threads while the caller works on this one."""
        return mapped_ahead(self.decoded, blocks)

    def decoded(self, block: Block) -> Decoded:
        """Decode a block; a number that is too large comes out as infinite, which no check lets through."""
        content = block.content.replace(b"\r\n", b"\n") if b"\r" in block.content else block.content
        rows = block.rows
        table = self._in_bulk(content, rows)
        if table is None and _aligned(content, rows):
            table = self._whole(content, rows)
        if table is not None:
            number = pa.array(np.arange(block.first_line, block.first_line + rows))
            return Decoded(table.append_column(LINE, number), no_rejects(), rows)
        lines = block.lines()
        parts = list(self._halved(lines))
        tables = [part for part in parts if isinstance(part, pa.Table)]
        rejects = [part for part in parts if isinstance(part, pl.DataFrame)]
        none = self._columns.append(pa.field(LINE, pa.int64())).empty_table()
        return Decoded(pa.concat_tables([none, *tables]), pl.concat([no_rejects(), *rejects]), len(lines))

    def _in_bulk(self, content: bytes, rows: int) -> pa.Table | None:
        """Parse a large block the fastest way, if it has no other keys than the columns."""
        if self._others != "error" or len(content) < FEWEST_BYTES:
            return None
        if not hasattr(self._bulk, "parser"):  # one for each thread that decodes
            self._bulk.parser = BulkParser()
            self._present = pa.schema([_present(column, content) for column in self._columns])
        table: pa.Table | None = self._bulk.parser.parsed(content, self._present, rows)
        return table

    def _whole(self, content: bytes, rows: int) -> pa.Table | None:
        """Parse a block with the keys of an earlier one; if it has others, with those that stand in its text."""
        if self._others == "error" and (table := _parsed(content, self._present, rows, "error")) is not None:
            return table
        present = pa.schema([_present(column, content) for column in self._columns])
        for others in ("error", "ignore"):
            if (table := _parsed(content, present, rows, others)) is not None:
                self._present, self._others = present, others  # for the blocks to come
                return table
        return None

    def _halved(self, lines: pl.DataFrame) -> Iterator[pa.Table | pl.DataFrame]:
        if not len(lines):
            return
        text = lines["raw"].to_list()
        content = ("\n".join(text) + "\n").encode()
        whole = all(raw.lstrip()[:1] == "{" and raw.rstrip()[-1:] == "}" for raw in text)
        table = _parsed(content, self._columns, len(lines), "ignore") if whole else None
        if table is not None:
            yield table.append_column(LINE, lines[LINE].to_arrow())
        elif len(lines) == 1:
            yield self._reject(lines)
        else:
            half = len(lines) // 2
            yield from self._halved(lines[:half])
            yield from self._halved(lines[half:])

    def _reject(self, line: pl.DataFrame) -> pl.DataFrame:
        try:
            record = load_json(line["raw"][0])
        except Refused as error:
            return rejects_of(line[LINE], error.reason, [error.detail], line["raw"].to_list())
        worst = jsonschema.exceptions.best_match(self._validator.iter_errors(record))
        if worst is None:
            detail, reason = "a value is of no type that this format holds", Reason.WRONG_TYPE
        else:
            detail = f"{_path(worst.absolute_path)}: {worst.message[:200]}"
            reason = REASONS.get(str(worst.validator), Reason.WRONG_VALUE)
        return rejects_of(line[LINE], reason, [detail], line["raw"].to_list())


def _aligned(content: bytes, rows: int) -> bool:
    """Tell whether every line is an object: none is empty, and none goes on in the next."""
    return content.startswith(b"{") and content.endswith(b"}\n") and content.count(b"}\n{") == rows - 1


def _present(column: pa.Field, content: bytes) -> pa.Field:
    """Leave out of a nested column the keys that the text does not hold, so that they cost nothing."""
    kind = column.type
    inner = kind.value_type if pa.types.is_list(kind) else kind
    if not pa.types.is_struct(inner):
        return column
    kept = [_present(child, content) for child in inner if f'"{child.name}"'.encode() in content]
    struct = pa.struct(kept or [inner.field(0)])
    return pa.field(column.name, pa.list_(struct) if pa.types.is_list(kind) else struct)


def _parsed(content: bytes, columns: pa.Schema, rows: int, others: str) -> pa.Table | None:
    """Parse as many objects as there are lines, or nothing; `others` says what keys without a column do."""
    try:
        table = paj.read_json(
            io.BytesIO(content),
            read_options=paj.ReadOptions(block_size=max(PARSE_BYTES, 2 * len(content) // max(rows, 1))),
            parse_options=paj.ParseOptions(explicit_schema=columns, unexpected_field_behavior=others),
        )
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    return None if table.num_rows != rows or _not_finite(table) else table


def _not_finite(table: pa.Table) -> bool:
    """Tell whether a number is NaN or infinite: no JSON, but Arrow takes it."""
    floats: Any = pl.selectors.float()
    flat = pl.from_arrow(table.select([f.name for f in table.schema if not pa.types.is_list(f.type)]).flatten())
    assert isinstance(flat, pl.DataFrame)
    inner = [_items(table, f.name) for f in table.schema if pa.types.is_list(f.type)]
    frames = [flat, *(part for part in inner if part is not None)]
    return any(
        not frame.select(pl.all_horizontal(floats.is_finite().all())).to_series().all()
        for frame in frames
        if len(frame.select(floats).columns)
    )


def _items(table: pa.Table, name: str) -> pl.DataFrame | None:
    column = table[name].combine_chunks()
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    values = column.flatten()
    if not pa.types.is_struct(values.type):
        return None
    found = pl.from_arrow(pa.table(values.flatten(), names=[child.name for child in values.type]))
    assert isinstance(found, pl.DataFrame)
    return found


def _path(parts: Iterator[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".") or "record"


def records(lines: pl.DataFrame) -> tuple[list[tuple[int, dict[str, Any]]], pl.DataFrame]:
    r"""Decode `line`, `raw` into objects, for formats whose records have no fixed shape; and the rejects.

    >>> good, bad = records(pl.DataFrame({"line": [1, 2], "raw": ['{"a": 1}', "[]"]}))
    >>> good, bad["detail"].to_list()
    ([(1, {'a': 1})], ['a list, expected an object'])
    """
    good: list[tuple[int, dict[str, Any]]] = []
    bad = [no_rejects()]
    for line, raw in lines.select(LINE, "raw").iter_rows():
        try:
            good.append((line, _object(load_json(raw))))
        except Refused as error:
            bad.append(rejects_of([line], error.reason, [error.detail], [raw]))
    return good, pl.concat(bad)


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refused(Reason.WRONG_TYPE, f"a {type(value).__name__}, expected an object")
    return value


def load_json(text: str | bytes) -> Any:
    """Decode one JSON text strictly: no NaN, no infinity, no key twice, no endless nesting.

    Raises:
        Refused: with the reason.
    """
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        said = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise Refused(Reason.BAD_JSON, f"no JSON: {said[:200]}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for place, (key, _) in enumerate(pairs) if key in dict(pairs[:place]))
        raise ValueError(f"key {twice[:80]!r} is there twice")
    return found


def _no_constant(name: str) -> float:
    raise Refused(Reason.NOT_FINITE, f"{name} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Refused(Reason.NOT_FINITE, f"{text[:80]} is too large a number")
    return value
