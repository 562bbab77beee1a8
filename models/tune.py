"""Search for better parameters: forward in time, in small steps, by any number of processes, resumable at any point."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import optuna

from lodestar.data.errors import ConfigError, unknown
from lodestar.data.schema import TTFT_MS
from lodestar.data.workspace import Workspace
from lodestar.models.latency import TARGETS
from lodestar.models.tuning.conclusion import conclude
from lodestar.models.tuning.locks import sole
from lodestar.models.tuning.report import TuneReport
from lodestar.models.tuning.search import finished, search
from lodestar.models.tuning.task import METRICS, prepared

__all__ = ["MAX_DECISION_US", "TuneReport", "tune"]

MAX_DECISION_US: Final = 100.0
_OUTCOME: Final = "outcome"


def tune(
    workspace: Workspace,
    dataset: str,
    trials: int,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
    target: str = TTFT_MS,
    metric: str = "mae",
    max_decision_us: float = MAX_DECISION_US,
) -> TuneReport:
    """Search until the study has `trials` finished trials, measure the best again, then train with the winner.

    Stop it whenever and however you like: the next call goes on from what was finished. Call it from several processes
    at once: they share the trials, one measures the best again and trains, and the others return the same report. The
    newest requests, on which the trained model is judged, take no part in the search. `progress` is told how many
    trials finished since it was last told, those of earlier calls first.

    Raises:
        ConfigError: no trials, an unknown target or metric, or a limit that no trial keeps to.
        DataError: too few rows, or a metric that the log does not allow.
    """
    began_at_s = time.time()
    _require_options(trials, target, metric, max_decision_us)
    with _quiet():
        task = prepared(workspace, dataset, target, metric, seed, max_decision_us)
        before = len(finished(task.study))
        interrupted = search(task.study, task.search, trials, _increments(progress))
        with sole(task.search.claims / f"{task.study.study_name}.finish"):
            known = task.study.user_attrs.get(_OUTCOME)
            if known is None or known["ended_at_s"] < began_at_s or known["report"]["trials"] < trials:
                report = conclude(task, before, interrupted)
                task.study.set_user_attr(_OUTCOME, {"ended_at_s": time.time(), "report": report.to_dict()})
                return report
    return TuneReport.from_dict(known["report"] | {"trials_before": before, "interrupted": interrupted})


def _require_options(trials: int, target: str, metric: str, max_decision_us: float) -> None:
    if trials < 1:
        raise ConfigError(f"--trials {trials}: nothing to search; expected 1 or more")
    if target not in TARGETS:
        raise unknown("target", target, TARGETS)
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    if not max_decision_us > 0:
        raise ConfigError(f"--max-decision-us {max_decision_us:g}: expected more than 0 µs")


def _increments(progress: Callable[[int], None] | None) -> Callable[[int], None]:
    """Turn the number of finished trials into how many are new."""
    told = 0

    def tell(done: int) -> None:
        nonlocal told
        if progress and done > told:
            progress(done - told)
        told = max(told, done)

    return tell


@contextmanager
def _quiet() -> Iterator[None]:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)
