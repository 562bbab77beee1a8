"""Mapping files, and a few rows of the logs that they describe: where a fuzzer of mapped logs starts."""

from __future__ import annotations

from typing import Final

from seeds import NATIVE, json_lines, parquet

__all__ = ["MAPPINGS", "MAP_SEEDS"]

#: Kind of a mapped log → its mapping file.
MAPPINGS: Final = {
    "csv": """kind = "csv"
null = ["", "NA"]
[fields]
request_id = "id"
arrived_at = { column = "when", unit = "iso" }
prompt_tokens = "in"
ttft_ms = { column = "ttft", unit = "s" }
instance = "pod"
[candidates.fields]
hit_ratio = { column = "{instance}-hit", unit = "percent" }
""",
    "jsonl": """kind = "jsonl"
block_tokens = 16
[fields]
request_id = "id"
arrived_at = { column = "when", unit = "unix_ms" }
prompt_tokens = "usage.in"
block_ids = "blocks"
e2e_ms = { column = "took", unit = "us" }
instance = "pod"
[candidates]
list = "seen"
instance = "name"
[candidates.fields]
running_requests = "running"
probability = "p"
""",
    "parquet": """kind = "parquet"
[fields]
request_id = "request.request_id"
arrived_at = { column = "request.arrived_at_s", unit = "relative_s" }
prompt_tokens = "request.prompt_tokens"
ttft_ms = "outcome.ttft_ms"
instance = "chosen"
[candidates]
list = "candidates"
[candidates.fields]
hit_ratio = "hit_ratio"
probability = "probability"
""",
}
MAP_SEEDS: Final[dict[str, bytes]] = {
    "csv": b"id,when,in,ttft,pod,a-hit,b-hit\n1,2024-05-10 00:00:01,10,0.5,a,50,0\n2,2024-05-10T00:00:02Z,9,NA,b,0,7\n",
    "jsonl": json_lines(
        *(
            {"id": i, "when": 1_780_000_000_000 + i, "usage": {"in": 17}, "blocks": [1, 2 + i], "took": 7e5, "pod": "a"}
            | {"seen": [{"name": "a", "running": 1, "p": 0.5}, {"name": "b", "running": 0, "p": 0.5}]}
            for i in range(3)
        )
    ),
    "parquet": parquet(*NATIVE),
}
