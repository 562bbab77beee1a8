"""How fast and how small ingest is, beside DuckDB's own reader: ``python tests/bench/ingest_speed.py [RUNS]``.

The baseline is ``CREATE TABLE t AS FROM 'file'`` into a database on disk: DuckDB parses the same file and stores it as
it stands, without checks, hashes, rejects or a canonical form. Each run is a process of its own that first reads a
few thousand rows of the kind, so that imports and compilation do not count. Printed: the medians of RUNS pairs, run in
turn, and their ratio; and the peak of the process's memory, at a quarter of the size too.
"""

from __future__ import annotations

import gzip
import json
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conftest import traces_folder

RUNS = 5
AZURE_ROWS, MOONCAKE_ROWS, NATIVE_ROWS = 5_000_000, 500_000, 1_000_000
CANDIDATES = 8
WARM_ROWS = 5000  # large enough to take the same ways

MEASURED = """
import os, resource, sys, time
from pathlib import Path

def duckdb_alone(file, home):
    import duckdb
    con = duckdb.connect(str(home / "baseline.duckdb"))
    con.execute("SET enable_progress_bar = false")
    con.execute(f"CREATE OR REPLACE TABLE t AS FROM '{file}'")
    con.close()

def lodestar(file, home):
    from lodestar.data.ingest import ingest
    from lodestar.data.workspace import Workspace
    report = ingest(Workspace.open(home), [file], file.stem)
    assert report.rows_stored == report.rows_read, report

run = {"duckdb": duckdb_alone, "lodestar": lodestar}[sys.argv[1]]
warm, file, home = map(Path, sys.argv[2:])
run(warm, home)
started, used = time.perf_counter(), sum(os.times()[:2])
run(file, home)
took, peak = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(took, sum(os.times()[:2]) - used, peak / 1024)
"""


def azure(folder: Path, rows: int) -> Path:
    """Write the Azure trace, over and over."""
    real = gzip.decompress((traces_folder() / "azure" / "AzureLLMInferenceTrace_conv.csv.gz").read_bytes())
    head, *lines = real.splitlines()
    return _repeated(folder / f"azure{rows}.csv", head + b"\r\n", lines, b"\r\n", rows)


def mooncake(folder: Path, rows: int) -> Path:
    """Write the Mooncake trace, over and over."""
    real = gzip.decompress((traces_folder() / "mooncake" / "conversation_trace.jsonl.gz").read_bytes())
    return _repeated(folder / f"mooncake{rows}.jsonl", b"", real.splitlines(), b"\n", rows)


def native(folder: Path, rows: int) -> Path:
    """Write a decision log, each request with its candidates, snapshot, probabilities and outcome."""
    path = folder / f"native{rows}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(_decisions(rows))
    return path


def _repeated(path: Path, head: bytes, lines: list[bytes], end: bytes, rows: int) -> Path:
    once = end.join(lines) + end
    with path.open("wb") as file:
        file.write(head)
        for _ in range(rows // len(lines)):
            file.write(once)
        file.write(b"".join(line + end for line in lines[: rows % len(lines)]))
    return path


def _decisions(rows: int) -> Iterator[str]:
    rng, now = random.Random(0), 0.0
    for i in range(rows):
        now += rng.expovariate(50)
        candidates = [
            {
                "instance": f"pod-{j}",
                "hit_ratio": round(rng.random(), 2),
                "inflight_requests": rng.randrange(20),
                "running_requests": rng.randrange(20),
                "waiting_requests": rng.randrange(5),
                "kv_usage_ratio": round(rng.random(), 4),
                "score": round(rng.random(), 3),
                "probability": 1 / CANDIDATES,
            }
            for j in range(CANDIDATES)
        ]
        record = {
            "request": {
                "request_id": f"r{i}",
                "arrived_at_s": round(now, 6),
                "prompt_tokens": rng.randrange(100, 8000),
                "output_tokens": rng.randrange(2, 300),
            },
            "policy": "random",
            "snapshot_age_ms": round(100 * rng.random(), 1),
            "candidates": candidates,
            "chosen": f"pod-{rng.randrange(CANDIDATES)}",
            "outcome": {
                "ttft_ms": round(rng.uniform(50, 900), 1),
                "tpot_ms": round(rng.uniform(5, 90), 2),
                "e2e_ms": round(rng.uniform(1000, 9000), 1),
                "status": "ok",
            },
        }
        yield json.dumps(record, separators=(",", ":")) + "\n"


def measured(what: str, warm: Path, file: Path) -> tuple[float, float, float]:
    """Run one of both in a process of its own: seconds, CPU seconds, peak MiB."""
    with TemporaryDirectory(dir=file.parent) as home:
        words = [sys.executable, "-c", MEASURED, what, str(warm), str(file), home]
        wall_s, cpu_s, peak_mib = map(float, subprocess.check_output(words, text=True).split())
    return wall_s, cpu_s, peak_mib


def compare(name: str, make: Callable[[Path, int], Path], rows: int, runs: int, folder: Path) -> None:
    """Print both medians, their ratio, and the peaks."""
    warm, quarter, file = make(folder, WARM_ROWS), make(folder, rows // 4), make(folder, rows)
    pairs = [(measured("duckdb", warm, file), measured("lodestar", warm, file)) for _ in range(runs)]
    base_s, own_s = (statistics.median(pair[k][0] for pair in pairs) for k in (0, 1))
    base_cpu_s, own_cpu_s = (statistics.median(pair[k][1] for pair in pairs) for k in (0, 1))
    peak, less = max(own[2] for _, own in pairs), measured("lodestar", warm, quarter)[2]
    print(
        f"{name:28s} {file.stat().st_size / 2**20:6.0f} MiB   DuckDB {base_s:6.2f} s   lodestar {own_s:6.2f} s   "
        f"speed {base_s / own_s:.2f}   by CPU {base_cpu_s / own_cpu_s:.2f}   peak {peak:,.0f} MiB, "
        f"at a quarter of the rows {less:,.0f} MiB",
        flush=True,
    )
    for path in (warm, quarter, file):
        path.unlink()


def main() -> None:
    """Print one line a file."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    with TemporaryDirectory() as folder:
        compare("Azure CSV, 5 M rows", azure, AZURE_ROWS, runs, Path(folder))
        compare("Mooncake JSONL, 500 k rows", mooncake, MOONCAKE_ROWS, runs, Path(folder))
        compare("native JSONL, 1 M × 8", native, NATIVE_ROWS, runs, Path(folder))


if __name__ == "__main__":
    main()
