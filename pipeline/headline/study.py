"""All cells, on as many cores as there are."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial

from lodestar.pipeline.headline.cell import CellResult, replay_cell
from lodestar.pipeline.headline.plan import Effort, Spec
from lodestar.pipeline.replay.parallel import cores
from lodestar.pipeline.replay.tuning.study import quiet

__all__ = ["study"]

Progress = Callable[[CellResult], None]
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def study(
    specs: Iterable[Spec], effort: Effort, workers: int | None = None, told: Progress | None = None
) -> list[CellResult]:
    """Replay every cell, and return them in the order of the specs whatever the number of workers.

    Policies that learn are in plain Python and hold the interpreter's lock, so that cores need processes.

    Args:
        specs: the cells.
        effort: how much of each.
        workers: processes; as many as there are cores where it is None; with one, all is done in this process.
        told: called as each cell is done.
    """
    in_order = list(specs)
    workers = min(cores() if workers is None else workers, len(in_order))
    found: dict[Spec, CellResult] = {}
    for result in _results(in_order, effort, workers):
        found[result.spec] = result
        if told is not None:
            told(result)
    return [found[spec] for spec in in_order]


def _results(specs: Sequence[Spec], effort: Effort, workers: int) -> Iterator[CellResult]:
    if workers <= 1:
        yield from map(partial(_quietly, effort=effort), specs)
        return
    with _one_thread():
        context = multiprocessing.get_context("spawn")  # a fork would copy the locks of threads that are not there
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as executor:
            begun = [executor.submit(_quietly, spec, effort) for spec in specs]
            try:
                for future in as_completed(begun):
                    yield future.result()
            finally:
                executor.shutdown(wait=False, cancel_futures=True)


def _quietly(spec: Spec, effort: Effort) -> CellResult:
    with quiet():
        return replay_cell(spec, effort)


def _end_with_parent() -> None:
    """End this process when the one that started it is gone: killed, it can't tell."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let the libraries of processes that start meanwhile use one core each."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
