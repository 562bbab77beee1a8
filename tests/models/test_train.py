from __future__ import annotations

from collections.abc import Callable

import pytest

from lodestar.data.errors import ConfigError, DataError
from lodestar.data.log import RequestLog
from lodestar.data.schema import E2E_MS, TPOT_MS, TTFT_MS
from lodestar.data.workspace import Workspace
from lodestar.models.parameters import Parameters
from lodestar.models.refresh.chain import load_state
from lodestar.models.registry.current import load_challenger, load_current, read_index
from lodestar.models.train import train

SMALL = Parameters(rounds=20, min_data_in_leaf=20)
MakeLog, AddLog = Callable[..., RequestLog], Callable[[Workspace, RequestLog], None]


def files_of(workspace: Workspace) -> dict[str, bytes]:
    """The models themselves, without the list of who was in use when."""
    return {
        path.relative_to(workspace.models).as_posix(): path.read_bytes()
        for path in workspace.models.rglob("*")
        if path.is_file() and path.name != "index.json"
    }


def test_all_targets_are_trained_and_what_passes_the_gate_is_used(
    workspace: Workspace, make_log: MakeLog, add_log: AddLog
) -> None:
    add_log(workspace, make_log(400))
    report = train(workspace, "made", parameters=SMALL)
    assert list(report.targets) == [TTFT_MS, TPOT_MS, E2E_MS]
    promoted = {target for target, found in report.targets.items() if found["promoted"]}
    assert set(load_current(workspace, "made")) == promoted
    assert set(load_challenger(workspace, "made")) == set(report.targets)
    state = load_state(workspace, "made")
    assert state is not None
    assert {target for target, chain in state.chains.items() if chain.is_champion} == promoted


def test_the_same_seed_trains_the_same_bytes(workspace: Workspace, make_log: MakeLog, add_log: AddLog) -> None:
    add_log(workspace, make_log(400))
    train(workspace, "made", parameters=SMALL, seed=3, targets=(TPOT_MS,))
    once = files_of(workspace)
    train(workspace, "made", parameters=SMALL, seed=3, targets=(TPOT_MS,))
    assert files_of(workspace) == once


def test_what_is_no_better_than_the_champion_is_kept_but_not_used(
    workspace: Workspace, make_log: MakeLog, add_log: AddLog
) -> None:
    add_log(workspace, make_log(400))
    champion = train(workspace, "made", parameters=SMALL, targets=(TPOT_MS,)).version
    narrow = Parameters(rounds=1, window_requests=50)
    refused = train(workspace, "made", parameters=narrow, targets=(TPOT_MS,))
    assert not refused.targets[TPOT_MS]["promoted"]
    assert read_index(workspace, "made").champions == {TPOT_MS: champion}
    assert load_challenger(workspace, "made")[TPOT_MS].model.trees == 1


def test_a_target_without_labels_is_skipped_and_named(workspace: Workspace, make_log: MakeLog, add_log: AddLog) -> None:
    log = make_log(200)
    log.tpot_ms[:] = float("nan")
    log.output_tokens[:] = 1  # with more, E2E would tell it
    add_log(workspace, log)
    report = train(workspace, "made", parameters=SMALL, targets=(TTFT_MS, TPOT_MS))
    assert list(report.targets) == [TTFT_MS]
    assert "200 with no tpot_ms" in report.skipped[TPOT_MS]


def test_a_log_without_e2e_trains_and_says_what_was_derived(
    workspace: Workspace, make_log: MakeLog, add_log: AddLog
) -> None:
    log = make_log(200)
    log.e2e_ms[:] = float("nan")
    add_log(workspace, log)
    report = train(workspace, "made", parameters=SMALL, targets=(TPOT_MS,))
    assert set(report.targets) == {TPOT_MS}
    assert report.notes["e2e_ms"].startswith("not logged for 200 of 200 requests: derived")


def test_too_few_rows_say_how_many_the_log_had_and_where_they_went(
    workspace: Workspace, make_log: MakeLog, add_log: AddLog
) -> None:
    log = make_log(100)
    log.ttft_ms[:50] = float("nan")
    log.e2e_ms[:50] = log.tpot_ms[:50] = 100.0
    add_log(workspace, log)
    words = (
        r"of 100 requests are left to train ttft_ms after leaving out 50 with no ttft_ms and holding out the newest "
        r"30% and those unfinished at the cut; expected at least 50"
    )
    with pytest.raises(DataError, match=r"^\d\d " + words):
        train(workspace, "made", targets=(TTFT_MS,))


def test_what_cannot_be_asked_for_is_named(workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="dataset 'nothing' is not known"):
        train(workspace, "nothing")
    with pytest.raises(ConfigError, match="strategy 'sometimes' is not known"):
        train(workspace, "nothing", incremental=True, strategy="sometimes")
    with pytest.raises(ConfigError, match="--every 0"):
        train(workspace, "nothing", incremental=True, every=0)
