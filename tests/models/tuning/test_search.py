from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from lodestar.models.parameters import Parameters
from lodestar.models.rows import Rows
from lodestar.models.tuning.finalists import SEEDS, finalists, winner
from lodestar.models.tuning.folds import folds, fresh_folds
from lodestar.models.tuning.journal import open_study, trials_of
from lodestar.models.tuning.locks import claim
from lodestar.models.tuning.losses import ERRORS
from lodestar.models.tuning.search import STOPPED, Search, finished, is_default, measured_in_full, search
from lodestar.models.tuning.space import Space
from lodestar.models.tuning.speed import Speed

HARNESS = Path(__file__).with_name("killed_search.py")
MAE = ERRORS["mae"]


@pytest.fixture
def its(make_rows: Callable[..., Rows], tmp_path: Path) -> Search:
    return Search(
        target="ttft_ms",
        space=Space(("ms", "ratio"), ("cache",)),
        folds=folds(make_rows(200), MAE),
        heads=False,
        seed=0,
        speed=Speed(2.0, 0.5),
        limit_us=100.0,
        claims=tmp_path / "claims",
    )


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return open_study(tmp_path / "journal", "s")


def ignore(done: int) -> None:
    pass


def test_killed_searches_lose_nothing_and_end_as_one_that_was_not(tmp_path: Path) -> None:
    trials, kills = 5, 3
    command = [sys.executable, str(HARNESS), str(tmp_path / "journal"), str(trials), str(kills)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["codes"] == [0, 0, 0]
    after = [*found["after"], found["resumed"], found["shared"]]
    for earlier, later in pairwise(after):
        assert later[: len(earlier)] == earlier
    assert found["resumed"] == found["whole"]
    # Two processes on the same study then shared as many trials again: each draw once, none left open.
    assert sorted(draw for draw, *_ in found["shared"]) == list(range(2 * trials))
    assert (found["workers"], found["running"]) == (2, 0)


def test_the_defaults_come_first_and_the_asked_number_is_reached_once(study: optuna.Study, its: Search) -> None:
    search(study, its, 3, ignore)
    assert [is_default(trial) for trial in finished(study)] == [True, False, False]
    assert its.space.parameters(finished(study)[0].params, 100) == Parameters()
    told: list[int] = []
    search(study, its, 3, told.append)
    assert set(told) == {3}


def test_the_trial_of_a_dead_process_is_given_up(study: optuna.Study, its: Search) -> None:
    dead, unclaimed = study.ask(), study.ask()
    dead.set_user_attr("claim", "of a process that is gone")
    assert search(study, its, 1, ignore) == 2
    assert [trial.number for trial in trials_of(study, TrialState.FAIL)] == [dead.number, unclaimed.number]


def test_the_trial_of_a_living_process_counts_and_is_waited_for(
    study: optuna.Study, its: Search, tmp_path: Path
) -> None:
    with claim(its.claims) as alive:
        running = study.ask()
        running.set_user_attr("draw", 0)
        running.set_user_attr("claim", alive)
        other = Thread(target=search, args=(open_study(tmp_path / "journal", "s"), its, 1, ignore))
        other.start()
        other.join(timeout=1.0)
        assert other.is_alive()
        study.tell(running, 1.0)
    other.join(timeout=300.0)
    assert [trial.number for trial in study.trials] == [running.number]
    assert len(finished(study)) == 1


def test_half_a_line_of_a_writer_that_was_killed_is_cut_off(study: optuna.Study, its: Search, tmp_path: Path) -> None:
    search(study, its, 1, ignore)
    journal = tmp_path / "journal"
    with journal.open("ab") as file:
        file.write(b'{"op_code":4,"worker_id":"x' + b"y" * 70_000)
    again = open_study(journal, "s")
    search(again, its, 2, ignore)
    assert len(finished(open_study(journal, "s"))) == 2
    assert all(json.loads(line) for line in journal.read_bytes().splitlines())


def test_a_trial_beyond_the_limit_is_refused_unfitted_and_never_wins(study: optuna.Study, its: Search) -> None:
    defaults = its.speed.decision_us(100, 15)
    search(study, replace(its, limit_us=defaults), 8, ignore)
    refused = trials_of(study, TrialState.PRUNED)
    assert refused
    assert all(trial.user_attrs["decision_us"] > defaults and not trial.intermediate_values for trial in refused)
    assert all(trial.user_attrs["decision_us"] <= defaults for trial in measured_in_full(study))


def test_a_trial_that_is_worse_block_by_block_stops_with_an_estimate_above_the_best(
    study: optuna.Study, its: Search
) -> None:
    worse = its.space.defaults() | {"rounds": 20, "learning_rate": 0.005, "use_cache": False}
    slow = replace(its, folds=[replace(fold, losses=_scaled(fold.losses)) for fold in its.folds])
    search(study, its, 1, ignore)
    study.enqueue_trial(worse)
    search(study, slow, 2, ignore)
    best, stopped = finished(study)
    assert stopped.user_attrs[STOPPED] == 6
    assert len(stopped.intermediate_values) == 6
    assert stopped.value > best.value
    assert [trial.number for trial in measured_in_full(study)] == [best.number]


def _scaled(losses: Any) -> Any:
    return lambda model: 2.0 * losses(model)


def test_a_trial_that_fails_is_told_so_at_once(study: optuna.Study, its: Search) -> None:
    def broken(model: object) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(study, replace(its, folds=[replace(fold, losses=broken) for fold in its.folds]), 1, ignore)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL]
    assert search(study, its, 1, ignore) == 0


def test_finalists_are_measured_once_with_seeds_that_no_trial_used(
    study: optuna.Study, its: Search, make_rows: Callable[..., Rows]
) -> None:
    search(study, its, 3, ignore)
    fresh = fresh_folds(make_rows(200), MAE)[:2]
    found = finalists(study, its, fresh)
    assert {finalist.number for finalist in found} <= {0, 1, 2}
    assert sum(finalist.is_default for finalist in found) == 1
    assert all(len(finalist.by_seed) == SEEDS for finalist in found)
    assert [finalist.mean for finalist in found] == sorted(finalist.mean for finalist in found)
    for finalist in found:
        assert finalist.mean == pytest.approx(np.mean(finalist.by_seed))
        assert finalist.seed_sd == pytest.approx(np.std(finalist.by_seed, ddof=1))
    assert finalists(study, its, []) == found  # nothing is fitted again


def test_the_defaults_are_kept_unless_a_trial_is_surely_better(
    study: optuna.Study, its: Search, make_rows: Callable[..., Rows]
) -> None:
    search(study, its, 2, ignore)
    best, *others = finalists(study, its, fresh_folds(make_rows(200), MAE)[:1])
    rival = next(each for each in (best, *others) if not each.is_default)
    defaults = next(each for each in (best, *others) if each.is_default)
    surely = replace(rival, less_default={"mean": -0.02, "low": -0.03, "high": -0.01})
    perhaps = replace(rival, less_default={"mean": -0.02, "low": -0.05, "high": 0.01})
    assert winner([surely, defaults])[0] is surely
    assert winner([perhaps, defaults])[0] is None
    assert "the defaults are kept" in winner([perhaps, defaults])[1]
    assert winner([defaults]) == (None, "no other trial is fast enough and was measured in full")
    assert winner([replace(rival, less_default=None)])[1] == "the defaults are too slow for the limit"
