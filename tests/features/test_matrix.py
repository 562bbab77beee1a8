from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from lodestar.data.ingest import ingest
from lodestar.data.log import RequestLog
from lodestar.data.reconstruction.reconstruct import complete_snapshot, workload_of
from lodestar.data.schema import SNAPSHOT_FIELDS
from lodestar.data.store import load_log, open_store
from lodestar.data.workspace import Workspace
from lodestar.features.definitions import FEATURES, candidate_features
from lodestar.features.matrix import chosen_features, decision_features


def real_log(traces: Path, home: Path) -> RequestLog:
    workspace = Workspace.open(home)
    ingest(workspace, [traces / "lodestar" / "sharing09" / "random.csv.gz"], "real")
    with open_store(workspace) as con:
        return load_log(con, "real")


def test_all_decisions_at_once_equal_one_at_a_time_on_every_row_of_a_real_log(traces: Path, tmp_path: Path) -> None:
    log = real_log(traces, tmp_path)
    snapshot, _ = complete_snapshot(log, workload_of(log))
    together = decision_features(log, snapshot)
    one = np.empty((len(log.instances), len(FEATURES)))
    for i in range(len(log)):
        seen = np.stack([snapshot[name][i] for name in SNAPSHOT_FIELDS], axis=1)
        candidate_features(float(log.prompt_tokens[i]), seen, one)
        np.testing.assert_array_equal(together[i], one)
    assert together.shape == (2491, 7, len(FEATURES))


def test_instances_that_were_no_candidates_and_unknown_prompts_are_missing(log_of: Callable[[int], RequestLog]) -> None:
    log = log_of(20)
    log.candidate[3, 1] = False
    log.prompt_tokens[5] = 0
    found = decision_features(log, log.snapshot)
    names = [feature.name for feature in FEATURES]
    assert np.isnan(np.delete(found[3, 1], names.index("prompt_tokens"))).all()
    assert np.isnan(found[5, :, names.index("uncached_prompt_tokens")]).all()
    assert not np.isnan(found[3, 0, names.index("uncached_prompt_tokens")])


def test_the_chosen_row_is_the_one_of_the_decision_or_missing(log_of: Callable[[int], RequestLog]) -> None:
    log = log_of(20)
    log.chosen[7] = -1
    features = decision_features(log, log.snapshot)
    chosen = chosen_features(log, features)
    np.testing.assert_array_equal(chosen[4], features[4, log.chosen[4]])
    assert np.isnan(chosen[7]).all()
