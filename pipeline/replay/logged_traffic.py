"""A dataset as everything that is made of it takes it: its log, complete, with what lends to it and what counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lodestar.data.log import Floats, RequestLog, Workload
from lodestar.data.reconstruction.arms import arms_of
from lodestar.data.reconstruction.arrivals_from import joined_arrivals
from lodestar.data.reconstruction.reconstruct import propensity_of, workload_of
from lodestar.data.store import load_log, open_store
from lodestar.data.workspace import Workspace
from lodestar.pipeline.replay.settings import Settings
from lodestar.pipeline.replay.window import WARMUP_RATIO, Window, window_of

__all__ = ["LoggedTraffic", "logged_traffic"]

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LoggedTraffic:
    """What was logged, and what was inferred of it.

    Attributes:
        log: the dataset.
        workload: the same requests in the same order, complete.
        window: the requests that numbers are over.
        propensity: of the choices, shape (n,), NaN where it is not known.
        propensity_note: how it was found, or why not; None where the log says it.
        arms: logs of the same requests under other routers, which tell prefixes apart.
        others: arms that are to be foretold, which tell nothing.
    """

    log: RequestLog
    workload: Workload
    window: Window
    propensity: Floats
    propensity_note: str | None = None
    arms: Sequence[RequestLog] = ()
    others: Sequence[RequestLog] = ()

    @classmethod
    def of(
        cls,
        log: RequestLog,
        warmup_ratio: float = WARMUP_RATIO,
        seed: int = 0,
        arms: Sequence[RequestLog] = (),
        others: Sequence[RequestLog] = (),
    ) -> LoggedTraffic:
        """Complete a log."""
        workload = workload_of(log, seed, arms)
        return cls(log, workload, window_of(workload, warmup_ratio), *propensity_of(log), arms, others)

    @property
    def counted(self) -> Bools:
        """Which requests numbers are over, shape (n,)."""
        counted = np.zeros(len(self.log), dtype=np.bool_)
        counted[self.window.rows] = True
        return counted


def logged_traffic(workspace: Workspace, dataset: str, settings: Settings) -> LoggedTraffic:
    """Load a dataset, and the arms of its traffic in the workspace, except those that are to be foretold."""
    with open_store(workspace) as con:

        def load(name: str) -> RequestLog:
            log = load_log(con, name)
            return joined_arrivals(log, load_log(con, settings.arrivals_from)) if settings.arrivals_from else log

        log, others = load(dataset), [load(name) for name in settings.measured]
        # What lends its arrival times must tell nothing else.
        timed = [load_log(con, settings.arrivals_from)] if settings.arrivals_from else []
        arms = arms_of(con, log, [*others, *timed])
    return LoggedTraffic.of(log, settings.warmup_ratio, settings.seed, arms, others)
