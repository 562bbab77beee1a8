"""Replay every policy everywhere, and write the leaderboard: ``python docs/leaderboard.py TRACES``.

Writes ``leaderboard.csv``, and from it ``leaderboard.md`` and ``leaderboard.svg``, beside this file; without TRACES the
latter two alone. TRACES holds ``lodestar/sharing09``, ``lodestar/sharing47`` and ``mooncake``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from leaderboard_cells import LOADS, Cell, cells, fleets, recorded, synthetic
from leaderboard_page import page
from leaderboard_picture import picture
from leaderboard_runs import Effort, cell_rows

from lodestar.pipeline.replay.parallel import mapper
from lodestar.pipeline.replay.tuning.study import quiet

CSV = Path(__file__).with_name("leaderboard.csv")


def run(all_cells: Iterable[Cell], effort: Effort, workers: int | None = None) -> pl.DataFrame:
    """Return one row a cell, policy and variant; the cells with most requests are begun first."""
    in_order = list(all_cells)
    longest = sorted(range(len(in_order)), key=lambda place: -len(in_order[place].cluster.workload))
    rows: dict[int, list[dict[str, Any]]] = {}
    with mapper(workers) as cores, quiet():
        found = cores.map(partial(cell_rows, effort=effort), [in_order[place] for place in longest])
        for done, (place, its) in enumerate(zip(longest, found, strict=True), 1):
            rows[place] = its
            print(f"{done} of {len(in_order)}: {', '.join(map(str, in_order[place][:3]))}", file=sys.stderr)
    return pl.DataFrame([row for place in range(len(in_order)) for row in rows[place]])


def written(frame: pl.DataFrame) -> str:
    """Return the frame as CSV; five figures are more than any other machine gives again."""
    floats = [name for name, kind in frame.schema.items() if kind == pl.Float64]
    return frame.with_columns(pl.col(floats).round_sig_figs(5)).write_csv()


def read(csv: Path) -> pl.DataFrame:
    """Read what `written` gave."""
    texts = ("workload", "fleet", "policy", "mark", "variant", "settings")
    kinds: Mapping[str, type[pl.DataType]] = dict.fromkeys(texts, pl.String)
    return pl.read_csv(csv, schema_overrides=kinds)


def main(arguments: list[str]) -> None:
    """Write the three files."""
    if arguments:
        began = time.perf_counter(), time.process_time()
        workloads, engine = recorded(Path(arguments[0]))
        all_cells = cells(workloads | synthetic(), fleets(engine), LOADS)
        CSV.write_text(written(run(all_cells, Effort())), encoding="utf-8")
        wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
        print(f"{wall:.0f} s, {cpu:.0f} s of CPU", file=sys.stderr)
    frame = read(CSV)
    CSV.with_suffix(".md").write_text(page(frame), encoding="utf-8")
    CSV.with_suffix(".svg").write_text(picture(frame), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
