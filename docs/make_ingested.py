"""What becomes of every real log, as a table: ``python docs/make_ingested.py TRACES > docs/ingested.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from lodestar.data.ingest import SourceReport, ingest
from lodestar.data.store import open_store
from lodestar.data.workspace import Workspace

INTRODUCTION = """# The real logs, ingested

Printed by `python docs/make_ingested.py TRACES`; a test holds it against the files. Each folder that belongs together
is one call of `lodestar ingest FOLDER --dataset NAME`. *Stored* and *rejected* add up to *rows*. A row is a request, a
span, or a line of engine statistics, as its format has it; a gateway log that is read together with its client's output
counts the requests that were joined as stored. Files that are no logs are skipped, and said to be.
"""
#: What is ingested in one call: folders whose files belong together, and files that stand alone.
CALLS = (
    *(f"lodestar/{load}/{arm}.csv.gz" for load in ("sharing09", "sharing47") for arm in ("random", "prefix", "rl")),
    *(f"lodestar/sharing09/{arm}.klog.gz" for arm in ("prefix", "rl")),
    "lodestar/gateway-2026-04.klog",
    *(f"aibrix/{arm}" for arm in ("random", "least-request", "prefix-cache", "prefix-cache-and-load")),
    "aibrix/workload.jsonl.gz",
    "llm-d-predictor",
    "mooncake",
    "azure",
    "weka",
    "vllm-otel",
    *(f"vllm-timeseries/rtxpro6000-{model}" for model in ("Llama-3.1-8B", "Qwen3-32B")),
    "vllm-bench",
    "aiperf",
)


Row = tuple[str, SourceReport | None, str]


def rows(traces: Path) -> Iterator[Row]:
    """Give every file with its report, and why its rows were rejected; None and why for a file that was skipped."""
    with TemporaryDirectory() as home:
        workspace = Workspace.open(Path(home))
        for number, call in enumerate(CALLS):
            report = ingest(workspace, [traces / call], f"d{number}")
            for source in report.sources:
                yield str(Path(source.file).relative_to(traces)), source, _reasons(workspace, f"d{number}", source.file)
            for skipped in report.skipped:
                yield str(Path(skipped.file).relative_to(traces)), None, "no log"


def _reasons(workspace: Workspace, dataset: str, file: str) -> str:
    query = 'SELECT reason, count(*) FROM rejects WHERE dataset = ? AND "file" = ? GROUP BY reason ORDER BY reason'
    with open_store(workspace) as con:
        return ", ".join(f"{count} {reason}" for reason, count in con.execute(query, [dataset, file]).fetchall())


def table(found: Iterable[Row]) -> str:
    """Return the document."""
    lines = ["| file | format | rows | stored | rejected | why |", "| --- | --- | ---: | ---: | ---: | --- |"]
    total = [0, 0, 0]
    for file, source, why in found:
        if source is None:
            lines.append(f"| {file} | – | – | – | – | skipped: {why} |")
            continue
        counts = (source.rows_read, source.rows_stored, source.rows_rejected)
        total = [before + count for before, count in zip(total, counts, strict=True)]
        format = f"{source.format} {source.version}" if source.version else source.format
        lines.append(f"| {file} | {format} | {' | '.join(f'{count:,}' for count in counts)} | {why} |")
    lines.append(f"| all | | {' | '.join(f'{count:,}' for count in total)} | |")
    return "\n".join([INTRODUCTION, *lines]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table(rows(Path(sys.argv[1]))))
