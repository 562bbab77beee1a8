"""JSON Lines to typed columns, fast for good lines, with the reason for every bad one."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, Final

import jsonschema
import polars as pl

from lodestar.data.reading import LINE, rejects_of

__all__ = ["decoded"]

CHUNK: Final = 8192
RECORD: Final = "record"


def decoded(
    lines: pl.DataFrame, dtype: pl.Struct, schema: dict[str, Any], suspicious: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Decode `line`, `raw` into `line`, `record`, and the rejects: `line`, `reason`.

    Polars decodes a chunk at once but stops at the first bad line of it, and takes some values too kindly (true for 1,
    2.5 for 2). Chunks that fail and lines that match the pattern `suspicious` are judged one by one by the JSON Schema.
    """
    odd = pl.col("raw").str.contains(suspicious)
    parts = [_judged(lines.filter(odd), dtype, schema)]
    plain = lines.filter(~odd)
    for chunk in plain.iter_slices(CHUNK):
        try:
            record = chunk["raw"].str.json_decode(dtype).alias(RECORD)
            parts.append((chunk.select(LINE).with_columns(record), rejects_of([], [])))
        except pl.exceptions.ComputeError:
            parts.append(_judged(chunk, dtype, schema))
    return pl.concat([good for good, _ in parts]).sort(LINE), pl.concat([bad for _, bad in parts]).sort(LINE)


def _judged(lines: pl.DataFrame, dtype: pl.Struct, schema: dict[str, Any]) -> tuple[pl.DataFrame, pl.DataFrame]:
    validator = jsonschema.Draft202012Validator(schema)
    good: list[tuple[int, object]] = []
    bad: list[tuple[int, str]] = []
    for line, raw in lines.select(LINE, "raw").iter_rows():
        record, reason = _record(raw, validator)
        if reason is None:
            good.append((line, record))
        else:
            bad.append((line, reason))
    records = pl.Series(RECORD, [record for _, record in good], dtype=dtype, strict=False)
    kept = pl.DataFrame({LINE: pl.Series([line for line, _ in good], dtype=pl.Int64), RECORD: records})
    return kept, rejects_of([line for line, _ in bad], [reason for _, reason in bad])


def _record(raw: str, validator: jsonschema.Draft202012Validator) -> tuple[object, str | None]:
    try:
        record = json.loads(raw, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        return None, f"no JSON: {error}"
    worst = jsonschema.exceptions.best_match(validator.iter_errors(record))
    return record, None if worst is None else f"{_path(worst.absolute_path)}: {worst.message[:200]}"


def _path(parts: Iterator[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".") or "record"


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large a number")
    return value
