"""A request log out as a native decision log."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import zstandard

from lodestar.data import schema as s
from lodestar.data.errors import ConfigError
from lodestar.data.log import Floats, RequestLog

__all__ = ["write_decision_log"]

ROW: Final = "row"


def write_decision_log(path: Path, log: RequestLog) -> None:
    """Write a log as ``.jsonl``, ``.jsonl.gz``, ``.jsonl.zst`` or ``.parquet``, by the suffix; whole or not at all."""
    encode = next((encode for suffix, encode in _ENCODERS.items() if path.name.endswith(suffix)), None)
    if encode is None:
        raise ConfigError(f"{path}: suffix is not known; expected one of {', '.join(_ENCODERS)}. Rename the file")
    half_written = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        half_written.write_bytes(encode(_records(log)))
        half_written.replace(path)
    except OSError as error:
        half_written.unlink(missing_ok=True)
        raise ConfigError(
            f"{path}: {error.strerror}; expected a place that can be written. Name another one"
        ) from error


def _records(log: RequestLog) -> pl.DataFrame:
    rows = pl.DataFrame(
        {
            ROW: np.arange(len(log)),
            s.REQUEST_ID: log.request_id,
            s.ARRIVED_AT_S: log.arrived_at_s,
            s.PROMPT_TOKENS: log.prompt_tokens,
            s.OUTPUT_TOKENS: _known(log.output_tokens),
            s.BLOCK_IDS: _block_lists(log),
            "chosen": pl.Series(log.chosen).replace_strict(
                list(range(len(log.instances))), log.instances, default=None, return_dtype=pl.String
            ),
            **{name: getattr(log, name) for name in s.OUTCOMES_LATENCIES},
        }
    ).with_columns(pl.selectors.float().fill_nan(None))
    told = pl.any_horizontal(pl.col(*s.OUTCOMES_LATENCIES).is_not_null())
    rows = rows.join(_candidates(log), on=ROW, how="left", maintain_order="left")
    request = [s.REQUEST_ID, s.ARRIVED_AT_S, s.PROMPT_TOKENS, s.OUTPUT_TOKENS]
    return rows.select(
        pl.struct(*request, *([s.BLOCK_IDS] if log.block_tokens is not None else [])).alias("request"),
        pl.lit(log.block_tokens, dtype=pl.Int64).alias("block_tokens"),
        pl.when(pl.col("chosen").is_not_null()).then(pl.lit(log.policy, dtype=pl.String)).alias(s.POLICY),
        "candidates",
        "chosen",
        pl.when(told)
        .then(
            pl.struct(*s.OUTCOMES_LATENCIES, pl.lit("ok").alias(s.STATUS)),
        )
        .alias("outcome"),
    )


def _known(values: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> pl.Series:
    series = pl.Series(values)
    return series.set(series < 0, None)


def _block_lists(log: RequestLog) -> pl.Series:
    row = np.repeat(np.arange(len(log)), np.diff(log.block_offsets))
    listed = pl.DataFrame({ROW: row, s.BLOCK_IDS: log.block_ids}).group_by(ROW, maintain_order=True).agg(s.BLOCK_IDS)
    every = pl.DataFrame({ROW: np.arange(len(log))}).join(listed, on=ROW, how="left", maintain_order="left")
    return every[s.BLOCK_IDS]


def _candidates(log: RequestLog) -> pl.DataFrame:
    """List each row's candidates with the fields that any candidate has."""
    row, instance = np.nonzero(log.candidate)
    grids: dict[str, Floats] = {**log.snapshot, s.PROBABILITY: log.probability}
    fields = {name: grid[row, instance] for name, grid in grids.items() if not np.isnan(grid[row, instance]).all()}
    names = pl.Series(np.array(log.instances, dtype=object)[instance], dtype=pl.String)
    frame = pl.DataFrame({ROW: row, s.INSTANCE: names, **fields}).with_columns(pl.selectors.float().fill_nan(None))
    listed = frame.select(ROW, pl.struct(s.INSTANCE, *fields).alias("candidates"))
    return listed.group_by(ROW, maintain_order=True).agg("candidates")


def _json_lines(records: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    records.write_ndjson(buffer)
    return buffer.getvalue()


def _parquet(records: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    records.write_parquet(buffer, compression="zstd")
    return buffer.getvalue()


_ENCODERS: Final[dict[str, Callable[[pl.DataFrame], bytes]]] = {
    ".jsonl": _json_lines,
    # mtime 0: the same log gives the same bytes.
    ".jsonl.gz": lambda records: gzip.compress(_json_lines(records), mtime=0),
    ".jsonl.zst": lambda records: zstandard.compress(_json_lines(records)),
    ".parquet": _parquet,
}
