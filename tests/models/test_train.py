from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lodestar.data.errors import ArtifactError, ConfigError, DataError
from lodestar.data.log import RequestLog
from lodestar.data.workspace import Workspace
from lodestar.models import current
from lodestar.models.current import load_current
from lodestar.models.parameters import Parameters
from lodestar.models.train import train

SMALL = Parameters(rounds=20, min_data_in_leaf=20)
MakeLog, AddLog = Callable[..., RequestLog], Callable[[Workspace, RequestLog], None]


def files_of(workspace: Workspace) -> dict[str, bytes]:
    home = workspace.models / "made"
    return {path.relative_to(home).as_posix(): path.read_bytes() for path in home.rglob("*") if path.is_file()}


def test_training_follows_a_growing_dataset(workspace: Workspace, make_log: MakeLog, add_log: AddLog) -> None:
    add_log(workspace, make_log(400))
    first = train(workspace, "made", parameters=SMALL)
    assert {target: found["promoted"] for target, found in first.targets.items()} == {"ttft_ms": True, "tpot_ms": True}
    kept = files_of(workspace)
    again = train(workspace, "made", incremental=True)
    assert [found["mode"] for found in again.targets.values()] == ["unchanged", "unchanged"]
    assert files_of(workspace) == kept
    add_log(workspace, make_log(400, first=400, slower=2.0))
    grown = train(workspace, "made", incremental=True)
    assert [found["mode"] for found in grown.targets.values()] == ["extended", "extended"]
    assert all(entry.model.trees == 40 for entry in load_current(workspace, "made").values())
    assert all(entry.record["requests_seen"] == 800 for entry in load_current(workspace, "made").values())


def test_the_same_seed_trains_the_same_bytes(
    workspace: Workspace, make_log: MakeLog, add_log: AddLog, tmp_path: Path
) -> None:
    add_log(workspace, make_log(400))
    train(workspace, "made", parameters=SMALL, seed=3)
    once = files_of(workspace)
    train(workspace, "made", parameters=SMALL, seed=3)
    assert files_of(workspace) == once


def test_what_is_worse_than_the_current_model_is_not_kept(
    workspace: Workspace, make_log: MakeLog, add_log: AddLog
) -> None:
    add_log(workspace, make_log(400))
    train(workspace, "made", parameters=SMALL, targets=("ttft_ms",))
    kept = files_of(workspace)
    narrow = Parameters(rounds=1, window_requests=50)
    refused = train(workspace, "made", parameters=narrow, targets=("ttft_ms",))
    assert not refused.targets["ttft_ms"]["promoted"]
    assert files_of(workspace) == kept


def test_a_target_without_labels_is_skipped_and_named(workspace: Workspace, make_log: MakeLog, add_log: AddLog) -> None:
    log = make_log(200)
    log.tpot_ms[:] = float("nan")
    log.output_tokens[:] = 1  # with more, E2E would tell it
    add_log(workspace, log)
    report = train(workspace, "made", parameters=SMALL)
    assert list(report.targets) == ["ttft_ms"]
    assert "200 with no tpot_ms" in report.skipped["tpot_ms"]


def test_a_log_without_e2e_trains_and_says_what_was_derived(
    workspace: Workspace, make_log: MakeLog, add_log: AddLog
) -> None:
    log = make_log(200)
    log.e2e_ms[:] = float("nan")
    add_log(workspace, log)
    report = train(workspace, "made", parameters=SMALL)
    assert set(report.targets) == {"ttft_ms", "tpot_ms"}
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
        train(workspace, "made", targets=("ttft_ms",))


def test_an_unknown_dataset_is_named(workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="dataset 'nothing' is not known"):
        train(workspace, "nothing")


@pytest.mark.parametrize("steps", [0, 1], ids=["before the version is whole", "before it is pointed to"])
def test_a_kill_while_saving_leaves_the_old_models(
    workspace: Workspace, make_log: MakeLog, add_log: AddLog, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    add_log(workspace, make_log(400))
    train(workspace, "made", parameters=SMALL, targets=("ttft_ms",))
    before = load_current(workspace, "made")["ttft_ms"].model.text()

    done, replace = [], os.replace

    def killed(*paths: Path) -> None:
        if len(done) == steps:
            raise KeyboardInterrupt
        done.append(replace(*paths))

    monkeypatch.setattr(os, "replace", killed)  # each step that makes something visible
    entry = load_current(workspace, "made")["ttft_ms"]
    changed = current.Trained(entry.held_out, entry.held_out, entry.record)
    with pytest.raises(KeyboardInterrupt):
        current.save_current(workspace, "made", {"ttft_ms": changed})
    assert load_current(workspace, "made")["ttft_ms"].model.text() == before


def test_saving_leaves_what_another_process_is_writing(
    workspace: Workspace, make_log: MakeLog, add_log: AddLog
) -> None:
    add_log(workspace, make_log(400))
    home = workspace.models / "made"
    (home / ".writing-other").mkdir(parents=True)
    first = train(workspace, "made", parameters=SMALL, targets=("ttft_ms",)).version
    second = train(workspace, "made", parameters=SMALL, seed=1).version
    assert first != second
    assert sorted(path.name for path in home.iterdir()) == sorted(
        [".lock", ".writing-other", "current.json", str(second)]
    )


def test_models_saved_at_the_same_time_can_be_read_at_any_time(
    workspace: Workspace, make_log: MakeLog, add_log: AddLog
) -> None:
    add_log(workspace, make_log(400))
    train(workspace, "made", parameters=SMALL, targets=("ttft_ms",))
    entry = load_current(workspace, "made")["ttft_ms"]

    def save_and_load(who: int) -> set[str]:
        targets: set[str] = set()
        for step in range(20):
            mine = current.Trained(entry.model, entry.held_out, {"step": (who + step) % 3})
            current.save_current(workspace, "made", {"ttft_ms": mine})
            targets |= set(load_current(workspace, "made"))
        return targets

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(save_and_load, range(3))) == [{"ttft_ms"}] * 3
    assert sum(not path.name.startswith(".") for path in (workspace.models / "made").iterdir()) == 2


def test_a_reader_overtaken_by_a_save_reads_the_new_version(
    workspace: Workspace, make_log: MakeLog, add_log: AddLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_log(workspace, make_log(400))
    train(workspace, "made", parameters=SMALL, targets=("ttft_ms",))
    entry = load_current(workspace, "made")["ttft_ms"]
    newer = {"ttft_ms": current.Trained(entry.held_out, entry.held_out, entry.record)}
    read, done = Path.read_text, []

    def overtaken(path: Path, encoding: str | None = None) -> str:
        text = read(path, encoding)
        if path.name == "current.json" and not done:
            done.append(path)
            current.save_current(workspace, "made", newer)
        return text

    monkeypatch.setattr(Path, "read_text", overtaken)
    assert load_current(workspace, "made")["ttft_ms"].model.text() == entry.held_out.text()


def test_a_current_version_that_is_gone_is_named(workspace: Workspace) -> None:
    (workspace.models / "made").mkdir(parents=True)
    (workspace.models / "made" / "current.json").write_text('{"version": "0123456789abcdef"}')
    with pytest.raises(ArtifactError, match="0123456789abcdef"):
        load_current(workspace, "made")
