"""Strategies of refitting on streams: each batch predicted by the model that existed when it began."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from training_store import add_requests

from lodestar.data.ingest import ingest
from lodestar.data.schema import TTFT_MS
from lodestar.data.workspace import Workspace
from lodestar.models.dataset import load_training_data
from lodestar.models.parameters import Parameters
from lodestar.models.refresh.batches import by_requests
from lodestar.models.refresh.prequential import STATIC, BatchScore, prequential
from lodestar.models.refresh.strategies import AUTO, STRATEGIES
from lodestar.models.rows import Rows

__all__ = ["LOGS", "MADE_ROWS", "SLOWER", "markdown", "rows_of_log", "slower", "strategies_section", "traces_folder"]

FIRST_ROWS, BATCH_ROWS = 600, 250
MADE_ROWS, MADE_BATCH = 12_600, 1000
SLOWER = 1.8  # from the middle of the stream on
LOGS = ("sharing09/random", "sharing09/prefix", "sharing09/rl", "sharing47/random", "sharing47/prefix", "sharing47/rl")


def traces_folder() -> Path:
    """Return where the tests look for real logs."""
    import sys

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from conftest import traces_folder as folder

    return folder()


def strategies_section() -> Iterator[str]:
    """Yield the tables: a line a stream and strategy, and the batches of the generated stream."""
    with TemporaryDirectory() as folder:
        workspace = Workspace.open(Path(folder))
        yield from _real(workspace)
        yield from _made(workspace)


def _real(workspace: Workspace) -> Iterator[str]:
    logs = traces_folder() / "lodestar"
    if not logs.is_dir():
        yield "The real logs are not here: point LODESTAR_TRACES at them.\n"
        return
    lines = []
    for name in LOGS:
        rows = rows_of_log(workspace, name)
        halfway = len(rows) // 2
        for stream, of in ((name, rows), (f"{name}, {SLOWER} x slower from its middle on", slower(rows, halfway))):
            lines += _lines(stream, of, BATCH_ROWS)
    yield f"First fit to {FIRST_ROWS} requests, batches of {BATCH_ROWS}; means over all batches.\n"
    yield _table(lines)


def rows_of_log(workspace: Workspace, name: str) -> Rows:
    """Ingest one of `LOGS` and return its labelled rows."""
    dataset = name.replace("/", "-")
    ingest(workspace, [traces_folder() / "lodestar" / f"{name}.csv.gz"], dataset)
    return load_training_data(workspace, dataset, (TTFT_MS,)).rows[TTFT_MS]


def _made(workspace: Workspace) -> Iterator[str]:
    add_requests(workspace, 0, MADE_ROWS)
    rows = slower(load_training_data(workspace, "made", (TTFT_MS,)).rows[TTFT_MS], MADE_ROWS // 2)
    yield f"Generated decisions, {SLOWER} x slower from the middle on; batches of {MADE_BATCH}.\n"
    yield _table(_lines("generated", rows, MADE_BATCH))
    by_batch = {name: _scores(rows, name, MADE_BATCH) for name in (STATIC, *STRATEGIES, AUTO)}
    head = ["batch", *by_batch]
    numbers = range(len(by_batch[STATIC]))
    lines = [[str(k), *(f"{scores[k].losses.mae_ms:.1f}" for scores in by_batch.values())] for k in numbers]
    yield "MAE (ms) of each batch:\n"
    yield markdown(head, lines)


def slower(rows: Rows, first: int) -> Rows:
    """Let all requests from this row on take longer."""
    factor = np.where(np.arange(len(rows)) >= first, SLOWER, 1.0)
    lasted_s = (rows.finished_at_s - rows.arrived_at_s) * factor
    return replace(rows, latency_ms=rows.latency_ms * factor, finished_at_s=rows.arrived_at_s + lasted_s)


def _scores(rows: Rows, strategy: str, batch: int) -> list[BatchScore]:
    position = np.arange(len(rows))
    first, rest = rows.only(position < FIRST_ROWS), rows.only(position >= FIRST_ROWS)
    return prequential(first, by_requests(rest, batch), TTFT_MS, strategy, Parameters(), every=batch // 2)


def _lines(stream: str, rows: Rows, batch: int) -> list[list[str]]:
    return [[stream, name, *_means(_scores(rows, name, batch))] for name in (STATIC, *STRATEGIES, AUTO)]


def _means(scores: Sequence[BatchScore]) -> list[str]:
    weights = [score.losses.rows for score in scores]
    mae_ms, log_loss, pinball_ms, coverage = (
        np.average([getattr(score.losses, name) for score in scores], weights=weights)
        for name in ("mae_ms", "log_loss", "pinball_ms", "coverage")
    )
    used = [score.strategy for score in scores if score.strategy]
    told = ", ".join(f"{used.count(name)} {name}" for name in STRATEGIES if name in used)
    seconds, trees = sum(score.refit_s for score in scores), scores[-1].trees
    return [
        f"{mae_ms:.1f}",
        f"{log_loss:.3f}",
        f"{pinball_ms:.1f}",
        f"{coverage:.3f}",
        f"{seconds:.2f}",
        str(trees),
        told,
    ]


def _table(lines: Sequence[Sequence[str]]) -> str:
    head = [
        "stream",
        "strategy",
        "MAE ms",
        "log loss",
        "P90 pinball ms",
        "P90 coverage",
        "refits, CPU s",
        "trees",
        "used",
    ]
    return markdown(head, lines)


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in rows) + "\n"
