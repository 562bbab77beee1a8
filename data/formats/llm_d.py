"""The training rows of llm-d's latency predictor, JSON Lines: what one unnamed instance looked like, and a latency."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from lodestar.data import schema as s
from lodestar.data.parsing.json_lines import Refused
from lodestar.data.parsing.records import CANDIDATES, Row, converted, entries, number, text, whole
from lodestar.data.reading import Format, Reading
from lodestar.data.reasons import Reason
from lodestar.data.sources.source import Source

__all__ = ["FORMAT", "UNNAMED"]

UNNAMED: Final = "unnamed"
KEYS: Final = (b'"kv_cache_percentage"', b'"input_token_length"', b'"actual_ttft_ms"', b'"actual_tpot_ms"')
#: Field of the snapshot → key; `kv_cache_percentage` is a share of 1, whatever its name says.
SNAPSHOT: Final = {
    s.KV_USAGE_RATIO: "kv_cache_percentage",
    s.HIT_RATIO: "prefix_cache_score",
    s.RUNNING_REQUESTS: "num_request_running",
    s.WAITING_REQUESTS: "num_request_waiting",
    s.PREFILL_TOKENS: "prefill_tokens_in_flight",
    s.DECODE_TOKENS: "decode_tokens_in_flight",
}
LABELS: Final = {s.TTFT_MS: "actual_ttft_ms", s.TPOT_MS: "actual_tpot_ms"}
NOTES: Final = (
    "rows name no request, instance or time: they train, in the order of the file, and cannot be replayed",
    f"the one instance of a row is named by its pod_type, or {UNNAMED!r} where that is empty",
    "prefix_cache_score is what the router believed, which may be much where the engines do not cache prefixes",
    "num_tokens_generated is how far a request had come, not its length: output tokens are not known",
)


def sniff(head: bytes) -> bool:
    """Tell by the keys of the first record."""
    first = head.lstrip(b"\xef\xbb\xbf \t\r\n").split(b"\n", 1)[0]
    return first.startswith(b"{") and all(key in first for key in KEYS)


def read(source: Source) -> Iterator[Reading]:
    """Read the rows, one a line, as requests whose one candidate was chosen; a label of 0 is an absent one."""
    for found, bad in entries(source):
        reading = converted(found, _row, bad)
        absent = {f"rows without {LABELS[name]}, logged as 0": reading.rows[name].null_count() for name in LABELS}
        yield replace(reading, notes=NOTES, counted=absent)


def _row(value: dict[str, Any]) -> Row:
    labels = {name: number(value, key) or None for name, key in LABELS.items()}
    if not any(labels.values()):
        raise Refused(Reason.SENTINEL, "actual_ttft_ms and actual_tpot_ms are both 0 or absent: the row has no label")
    instance = text(value, "pod_type") or UNNAMED
    snapshot = {name: number(value, key) for name, key in SNAPSHOT.items()}
    return {
        s.PROMPT_TOKENS: whole(value, "input_token_length", required=True),
        s.INSTANCE: instance,
        **labels,
        CANDIDATES: [{s.INSTANCE: instance, **snapshot}],
    }


FORMAT: Final = Format(
    name="llm-d",
    description="llm-d TrainingEntry, JSON Lines: snapshot of one instance with TTFT or TPOT; for training only",
    provides=("candidates", "outcomes"),
    sniff=sniff,
    read=read,
)
