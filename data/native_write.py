"""A request log out as a native decision log."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from lodestar.data import schema as s
from lodestar.data.conversations import session_names
from lodestar.data.log import Floats, RequestLog
from lodestar.data.record_files import write_records

__all__ = ["BESIDE", "decision_records", "write_decision_log"]

ROW: Final = "row"
#: What of a record is not in a `RequestLog`, with the type it is written in.
BESIDE: Final = {
    s.SNAPSHOT_AGE_MS: pl.Float64,
    s.MODEL_VERSION: pl.String,
    s.CACHED_TOKENS: pl.Int64,
    s.STATUS: pl.String,
}
_OK: Final = "ok"


def write_decision_log(path: Path, log: RequestLog) -> None:
    """Write a log as ``.jsonl``, ``.jsonl.gz``, ``.jsonl.zst`` or ``.parquet``, by the suffix; whole or not at all."""
    write_records(path, [decision_records(log)])


def decision_records(
    log: RequestLog, beside: pl.DataFrame | None = None, score: Floats | None = None, every_field: bool = False
) -> pl.DataFrame:
    """Return one record a request.

    Args:
        log: the requests.
        beside: one row a request, with columns of `BESIDE`; without a status, a request with a latency is 'ok'.
        score: of every candidate, shape (n, m).
        every_field: keep the fields that no candidate has, so that the parts of a log that is written in parts have
            the same fields.
    """
    told = pl.any_horizontal(pl.col(*s.OUTCOMES_LATENCIES).is_not_null())
    rows = pl.DataFrame(_columns(log)).with_columns(pl.selectors.float().fill_nan(None))
    rows = rows.with_columns(pl.when(told).then(pl.lit(_OK)).alias(s.STATUS))
    if beside is not None:
        rows = rows.with_columns(beside.select(pl.col(name).cast(BESIDE[name]) for name in beside.columns))
    grids = {**log.snapshot, s.PROBABILITY: log.probability, **({} if score is None else {s.SCORE: score})}
    rows = rows.join(_candidates(log, grids, every_field), on=ROW, how="left", maintain_order="left")
    named = [] if log.session is None else [s.SESSION_ID]
    request = [s.REQUEST_ID, *named, s.ARRIVED_AT_S, s.PROMPT_TOKENS, s.OUTPUT_TOKENS]
    outcome = [name for name in (*s.OUTCOMES_LATENCIES, *s.PHASES, s.CACHED_TOKENS, s.STATUS) if name in rows.columns]
    said = [name for name in (s.SNAPSHOT_AGE_MS, s.MODEL_VERSION) if name in rows.columns]
    return rows.select(
        pl.struct(*request, *([s.BLOCK_IDS] if log.block_tokens is not None else [])).alias("request"),
        pl.lit(log.block_tokens, dtype=pl.Int64).alias("block_tokens"),
        *said,
        pl.when(pl.col("chosen").is_not_null()).then(_policy(log)).alias(s.POLICY),
        "candidates",
        "chosen",
        pl.when(pl.col(s.STATUS).is_not_null()).then(pl.struct(*outcome)).alias("outcome"),
    )


def _policy(log: RequestLog) -> pl.Expr:
    """Return who decided each request."""
    if log.logger is None:
        return pl.lit(log.policy, dtype=pl.String)
    names = [log.loggers[number] if number >= 0 else None for number in log.logger]
    return pl.lit(pl.Series(names, dtype=pl.String))


def _columns(log: RequestLog) -> dict[str, object]:
    """Return what has one value a request."""
    return {
        ROW: np.arange(len(log)),
        s.REQUEST_ID: log.request_id,
        **({} if log.session is None else {s.SESSION_ID: session_names(log.session)}),
        s.ARRIVED_AT_S: log.arrived_at_s,
        s.PROMPT_TOKENS: log.prompt_tokens,
        s.OUTPUT_TOKENS: _known(log.output_tokens),
        s.BLOCK_IDS: _block_lists(log),
        "chosen": pl.Series(log.chosen).replace_strict(
            list(range(len(log.instances))), log.instances, default=None, return_dtype=pl.String
        ),
        **{name: getattr(log, name) for name in s.OUTCOMES_LATENCIES},
        **log.phases,
    }


def _known(values: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> pl.Series:
    series = pl.Series(values)
    return series.set(series < 0, None)


def _block_lists(log: RequestLog) -> pl.Series:
    row = np.repeat(np.arange(len(log)), np.diff(log.block_offsets))
    listed = pl.DataFrame({ROW: row, s.BLOCK_IDS: log.block_ids}).group_by(ROW, maintain_order=True).agg(s.BLOCK_IDS)
    every = pl.DataFrame({ROW: np.arange(len(log))}).join(listed, on=ROW, how="left", maintain_order="left")
    return every[s.BLOCK_IDS]


def _candidates(log: RequestLog, grids: dict[str, Floats], every_field: bool) -> pl.DataFrame:
    """List each row's candidates, with the fields that any of them has."""
    row, instance = np.nonzero(log.candidate)
    cells = {name: grid[row, instance] for name, grid in grids.items()}
    fields = {name: values for name, values in cells.items() if every_field or not np.isnan(values).all()}
    names = pl.Series(np.array(log.instances, dtype=object)[instance], dtype=pl.String)
    frame = pl.DataFrame({ROW: row, s.INSTANCE: names, **fields}).with_columns(pl.selectors.float().fill_nan(None))
    listed = frame.select(ROW, pl.struct(s.INSTANCE, *fields).alias("candidates"))
    return listed.group_by(ROW, maintain_order=True).agg("candidates")
