"""Searches that are killed: `python killed_search.py JOURNAL TRIALS KILLS` tells in JSON what was left after each kill.

Children are forked from a process without threads, so that a kill costs no second of imports.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import TrialState

from lodestar.features.definitions import FEATURES
from lodestar.models.rows import Rows
from lodestar.models.tuning.folds import folds
from lodestar.models.tuning.journal import open_study, trials_of
from lodestar.models.tuning.losses import ERRORS
from lodestar.models.tuning.search import Search, finished, search
from lodestar.models.tuning.space import Space
from lodestar.models.tuning.speed import Speed


def task(journal: Path) -> Search:
    rng, n = np.random.default_rng(0), 300
    features = rng.uniform(0.0, 5.0, (n, len(FEATURES)))
    arrived_at_s = np.arange(n) * 1.0
    rows = Rows(
        np.arange(n), features, 40 + 30 * features[:, 1] * rng.lognormal(0, 0.2, n), np.zeros(n, dtype=np.bool_),
        np.full(n, np.nan), arrived_at_s, arrived_at_s + 1.0, n, {},
    )  # fmt: skip
    space = Space(("ms",), ("cache", "counters"))
    return Search(
        "ttft_ms", space, folds(rows, ERRORS["mae"])[:3], False, 0, Speed(2.0, 0.5), 20.0, journal.parent / "claims"
    )


def forked(journal: Path, its: Search, trials: int) -> int:
    child = os.fork()
    if not child:
        search(open_study(journal, "s"), its, trials, lambda done: None)
        os._exit(0)
    return child


def trace(journal: Path) -> list[tuple[int, str, float | None, dict[str, float]]]:
    """Return what is known of each finished trial: draw, state, value, parameters."""
    return [(t.user_attrs["draw"], t.state.name, t.value, t.params) for t in finished(open_study(journal, "s"))]


def killed(journal: Path, its: Search, trials: int, chance: random.Random) -> None:
    """Kill a search at any moment once it has finished none to two trials more."""
    enough, deadline = len(trace(journal)) + chance.randrange(3), time.monotonic() + 60
    child = forked(journal, its, trials)
    while len(trace(journal)) < enough and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(chance.uniform(0.0, 0.2))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def main(journal: Path, trials: int, kills: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    its, chance, after = task(journal), random.Random(1), []
    for _ in range(kills):
        killed(journal, its, trials, chance)
        after.append(trace(journal))
    codes = [os.waitpid(forked(journal, its, trials), 0)[1]]
    resumed, whole = trace(journal), journal.with_name("whole.journal")
    search(open_study(whole, "s"), its, trials, lambda done: None)
    children = [forked(journal, its, 2 * trials) for _ in range(2)]
    codes += [os.waitpid(child, 0)[1] for child in children]
    study = open_study(journal, "s")
    workers = {t.user_attrs["claim"] for t in finished(study) if t.user_attrs["draw"] >= trials}
    found = {"after": after, "codes": codes, "resumed": resumed, "whole": trace(whole), "shared": trace(journal)}
    print(json.dumps(found | {"workers": len(workers), "running": len(trials_of(study, TrialState.RUNNING))}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
