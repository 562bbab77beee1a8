"""What goes from a server to the process that learns for it: frames of a kind, a length and bytes; no pickle."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.models.online.finished import Finished

__all__ = ["FORGET", "ROWS", "SERVES", "frame", "job_of", "read_frame", "rows_frame", "rows_of", "serves_frame"]

Floats = NDArray[np.float64]

#: New rows, perhaps none: to learn from, and to look whether a refit is due.
ROWS: Final = b"R"
#: What serves from now on, and by what settings to learn.
SERVES: Final = b"S"
#: All rows are to be forgotten.
FORGET: Final = b"F"
_PREDICTED: Final = "predicted_ms"


def frame(kind: bytes, content: bytes = b"") -> bytes:
    """Return a frame."""
    return kind + len(content).to_bytes(8, "little") + content


def read_frame(file: BinaryIO) -> tuple[bytes, bytes] | None:
    """Return the next frame; None where the server has gone.

    >>> read_frame(io.BytesIO(frame(ROWS, b"abc"))), read_frame(io.BytesIO())
    ((b'R', b'abc'), None)
    """
    head = file.read(9)
    if len(head) < 9:
        return None
    content = file.read(int.from_bytes(head[1:], "little"))
    return head[:1], content


def rows_frame(rows: Finished, predicted_ms: Floats) -> bytes:
    """Return finished requests, with the TTFT that was predicted of each, as a frame."""
    columns = {field.name: getattr(rows, field.name) for field in fields(rows)}
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, **columns, **{_PREDICTED: predicted_ms})
    return frame(ROWS, out.getvalue())


def rows_of(content: bytes) -> tuple[Finished, Floats]:
    """Read what `rows_frame` wrote."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        columns = {name: file[name] for name in file.files}
    predicted_ms = columns.pop(_PREDICTED)
    return Finished(**columns), predicted_ms


def serves_frame(job: Mapping[str, Any]) -> bytes:
    """Return what serves as a frame.

    The trees go as they are, behind the rest: to write megabytes as JSON would hold the interpreter for as long.
    """
    incumbent = job["incumbent"]
    texts = {} if incumbent is None else incumbent["texts"]
    parts = [(target, head, text.encode()) for target, heads in texts.items() for head, text in heads.items()]
    told = {**job, "incumbent": None if incumbent is None else incumbent["values"]}
    head = json.dumps({"job": told, "trees": [(target, name, len(part)) for target, name, part in parts]})
    return frame(SERVES, b"\n".join([head.encode(), b"".join(part for _, _, part in parts)]))


def job_of(content: bytes) -> dict[str, Any]:
    """Read what `serves_frame` wrote.

    >>> incumbent = {"values": {"ttft_ms": {}}, "texts": {"ttft_ms": {"": "tree", "p90": "another"}}}
    >>> job_of(serves_frame({"seed": 1, "incumbent": incumbent})[9:])["incumbent"] == incumbent
    True
    """
    first, _, trees = content.partition(b"\n")
    told = json.loads(first)
    job: dict[str, Any] = told["job"]
    if job["incumbent"] is not None:
        texts: dict[str, dict[str, str]] = {target: {} for target in job["incumbent"]}
        at = 0
        for target, name, length in told["trees"]:
            texts[target][name] = trees[at : at + length].decode()
            at += length
        job["incumbent"] = {"values": job["incumbent"], "texts": texts}
    return job
