"""The bodies that llm-d's client sends, with the bounds of its servers, and what is said of one that breaks them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter
from typing import Annotated, Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic.types import FailFast

from lodestar.models.online.llm_d_rows import INPUT_KEYS, LABEL_KEYS

__all__ = [
    "BULK",
    "ENTRIES",
    "FLUSH",
    "ITEM",
    "MAX_ROWS",
    "ROWS",
    "BulkRows",
    "Entry",
    "FlushRequest",
    "LooseBulk",
    "Row",
    "faults",
    "in_words",
    "input_columns",
    "label_columns",
]

Floats = NDArray[np.float64]

MAX_ROWS: Final = 10_000
#: A flush of llm-d's client has at most LATENCY_MAX_SAMPLE_SIZE rows, by default 1,000.
_MAX_ENTRIES: Final = 100_000
_DAY_MS: Final = 86_400_000.0

Ratio = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
#: Up to what an int64 of the Go client can hold.
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
Latency = Annotated[float, Field(ge=0.0, le=_DAY_MS, allow_inf_nan=False)]

# Defaults that no client can send: they are not of the field's type.
_UNKNOWN: Any = math.nan
_LEFT_OUT: Any = None


class Row(BaseModel):
    """What llm-d knows of one request on one instance. Tokens in flight that are left out are unknown, not 0.

    `num_tokens_generated`, `pod_type` and the encoder's sizes are checked and not used: no log that models are trained
    on has them for requests to come.
    """

    kv_cache_percentage: Ratio
    input_token_length: Count
    num_request_waiting: Count
    num_request_running: Count
    num_tokens_generated: Count
    prefix_cache_score: Ratio
    pod_type: Annotated[str, Field(max_length=253)] | None = ""
    prefill_tokens_in_flight: Count = _UNKNOWN
    decode_tokens_in_flight: Count = _UNKNOWN
    encoder_matched_size: Count = 0
    encoder_input_size: Count = 0


class Entry(Row):
    """A row with a measured latency, 0 for one that it does not have; `timestamp` is checked and not used."""

    actual_ttft_ms: Latency
    actual_tpot_ms: Latency
    predicted_ttft_ms: Latency | None = None
    predicted_tpot_ms: Latency | None = None
    timestamp: datetime = _LEFT_OUT


class BulkRows(BaseModel):
    """Rows of which all must be right; reading ends at the first that is not."""

    requests: Annotated[list[Row], FailFast(), Field(min_length=1, max_length=MAX_ROWS)]


class LooseBulk(BaseModel):
    """Rows of which some may be wrong."""

    requests: Annotated[list[Any], Field(min_length=1, max_length=MAX_ROWS)]


class Entries(BaseModel):
    """Rows to learn from."""

    entries: Annotated[list[Entry], FailFast(), Field(max_length=_MAX_ENTRIES)]


class FlushRequest(BaseModel):
    """What to forget."""

    flush_training_data: bool = True
    flush_test_data: bool = True
    flush_metrics: bool = True
    reason: Annotated[str, Field(max_length=10_000)] | None = None


ITEM: Final = TypeAdapter(Row)
ROWS: Final = TypeAdapter(BulkRows)
BULK: Final = TypeAdapter(LooseBulk)
ENTRIES: Final = TypeAdapter(Entries)
FLUSH: Final = TypeAdapter(FlushRequest)

_INPUTS: Final = attrgetter(*INPUT_KEYS)
_LABELS: Final = attrgetter(*LABEL_KEYS)


def input_columns(rows: Sequence[Row]) -> Floats:
    """Return what features are made of, shape (n, len(INPUT_KEYS)), NaN where a row does not say."""
    return np.array([_INPUTS(row) for row in rows], dtype=np.float64).reshape(-1, len(INPUT_KEYS))


def label_columns(entries: Sequence[Entry]) -> Floats:
    """Return TTFT and TPOT in ms, shape (n, 2), NaN where an entry has none.

    >>> inputs = '"kv_cache_percentage":0,"input_token_length":9,"num_request_waiting":0,"num_request_running":0,'
    >>> labels = '"num_tokens_generated":0,"prefix_cache_score":0,"actual_ttft_ms":120.5,"actual_tpot_ms":0'
    >>> label_columns(ENTRIES.validate_json(f'{{"entries":[{{{inputs}{labels}}}]}}').entries)
    array([[120.5,   nan]])
    """
    labels = np.array([_LABELS(entry) for entry in entries], dtype=np.float64).reshape(-1, len(LABEL_KEYS))
    return np.where(labels > 0, labels, np.nan)


def faults(error: ValidationError, most: int = 20) -> list[dict[str, Any]]:
    """Return what is wrong as FastAPI would: type, place and message of each fault, the first `most` of them."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [{"type": one["type"], "loc": ["body", *one["loc"]], "msg": one["msg"]} for one in found[:most]]


def in_words(error: ValidationError) -> str:
    """Return the faults of one row in a line."""
    return "; ".join(f"{'.'.join(map(str, one['loc'][1:])) or 'row'}: {one['msg']}" for one in faults(error))
