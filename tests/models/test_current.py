from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from lodestar.data.errors import ArtifactError, ConfigError
from lodestar.data.workspace import Workspace
from lodestar.models.fit import fit
from lodestar.models.parameters import Parameters
from lodestar.models.registry import current
from lodestar.models.registry.current import (
    Trained,
    load_challenger,
    load_current,
    load_version,
    promote,
    read_index,
    roll_back,
    save_current,
    save_version,
)
from lodestar.models.registry.version_index import KEPT, times
from lodestar.models.rows import Rows


@pytest.fixture(scope="module")
def model(make_rows: Callable[..., Rows]) -> Trained:
    fitted, _ = fit(make_rows(200), "ttft_ms", Parameters(rounds=2, min_data_in_leaf=20), 0, heads=False)
    return Trained(fitted, fitted, {"step": 0})


@pytest.fixture
def home(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path)


def other(trained: Trained, step: int) -> Trained:
    """The same model with another level and record, so that its content differs."""
    return Trained(replace(trained.model, mean_ratio=1.0 + step), trained.held_out, {"step": step})


def saved(home: Workspace, trained: Trained, *steps: int, use: bool = True) -> list[str]:
    targets = ["ttft_ms"] if use else []
    return [save_version(home, "d", {"ttft_ms": other(trained, step)}, champions=targets) for step in steps]


def in_use(home: Workspace) -> int:
    step: int = load_current(home, "d")["ttft_ms"].record["step"]
    return step


def names(home: Workspace) -> list[str]:
    return sorted(path.name for path in (home.models / "d").iterdir() if path.name[0] != ".")


def test_where_nothing_was_trained_there_is_nothing(home: Workspace) -> None:
    assert (load_current(home, "d"), load_challenger(home, "d"), read_index(home, "d").versions) == ({}, {}, [])
    for change in (promote, roll_back):
        with pytest.raises(ConfigError, match=r"'d' has no trained model; expected one\. Run: lodestar train d"):
            change(home, "d")
    assert not (home.models / "d").exists()


def test_what_is_not_promoted_is_kept_beside_what_is_in_use(home: Workspace, model: Trained) -> None:
    (champion,), (challenger,) = saved(home, model, 1), saved(home, model, 2, use=False)
    assert in_use(home) == 1
    assert load_challenger(home, "d")["ttft_ms"].record["step"] == 2
    assert load_version(home, "d", challenger[:5])["ttft_ms"].model.mean_ratio == 3.0
    assert read_index(home, "d").champions == {"ttft_ms": champion}


def test_targets_are_promoted_one_by_one(home: Workspace, model: Trained) -> None:
    both = {"ttft_ms": other(model, 1), "tpot_ms": other(model, 2)}
    first = save_version(home, "d", both, champions=["ttft_ms"])
    assert set(load_current(home, "d")) == {"ttft_ms"}
    second = save_version(home, "d", {"tpot_ms": other(model, 3)}, champions=["tpot_ms"])
    assert read_index(home, "d").champions == {"ttft_ms": first, "tpot_ms": second}
    assert read_index(home, "d").reigns[-1].why == "promoted by the gate"


def test_a_rollback_restores_what_was_in_use_step_by_step(home: Workspace, model: Trained) -> None:
    saved(home, model, 1, 2, 3)
    seen = [in_use(home)]
    for _ in range(2):
        roll_back(home, "d")
        seen.append(in_use(home))
    assert seen == [3, 2, 1]
    with pytest.raises(ConfigError, match="no champion before this one"):
        roll_back(home, "d")
    assert load_challenger(home, "d")["ttft_ms"].record["step"] == 3


def test_after_a_rollback_and_a_promotion_a_rollback_restores_what_was_in_use_between(
    home: Workspace, model: Trained
) -> None:
    saved(home, model, 1, 2)
    roll_back(home, "d")
    saved(home, model, 3)
    roll_back(home, "d")
    assert in_use(home) == 1


def test_a_rollback_to_a_version_takes_only_what_was_in_use(home: Workspace, model: Trained) -> None:
    first, *_ = saved(home, model, 1, 2, 3)
    (never,) = saved(home, model, 4, use=False)
    for version, words in {never: "never was a champion", "zz": "is not known", "": "is not known"}.items():
        with pytest.raises(ConfigError, match=words):
            roll_back(home, "d", version)
    roll_back(home, "d", first[:6])
    assert in_use(home) == 1
    with pytest.raises(ConfigError, match="is a champion now"):
        roll_back(home, "d", first)


def test_a_rollback_restores_all_targets_as_they_were(home: Workspace, model: Trained) -> None:
    save_version(home, "d", {"ttft_ms": other(model, 1)}, champions=["ttft_ms"])
    both = {"ttft_ms": other(model, 2), "tpot_ms": other(model, 2)}
    save_version(home, "d", both, champions=["ttft_ms", "tpot_ms"])
    roll_back(home, "d")
    assert {target: found.record["step"] for target, found in load_current(home, "d").items()} == {"ttft_ms": 1}


def test_by_hand_the_newest_is_promoted_or_the_one_that_is_named(home: Workspace, model: Trained) -> None:
    first, second = saved(home, model, 1, 2, use=False)
    promote(home, "d")
    assert in_use(home) == 2
    promote(home, "d", first)
    assert in_use(home) == 1
    assert read_index(home, "d").reigns[-1].why == "promoted by hand"
    with pytest.raises(ConfigError, match=f"version {first} is in use already"):
        promote(home, "d", first)
    spans = times(read_index(home, "d"), second, "ttft_ms")
    assert [(span["why"], span["to"] is None) for span in spans] == [("promoted by hand", False)]


def test_by_hand_one_target_can_be_promoted_alone(home: Workspace, model: Trained) -> None:
    save_version(home, "d", {"ttft_ms": other(model, 1), "tpot_ms": other(model, 2)})
    promote(home, "d", targets=["tpot_ms"])
    assert set(load_current(home, "d")) == {"tpot_ms"}
    with pytest.raises(ConfigError, match="target 'ttft' is not known; did you mean 'ttft_ms'"):
        promote(home, "d", targets=["ttft"])


def test_the_newest_versions_stay_and_those_in_use_and_what_a_rollback_restores(
    home: Workspace, model: Trained
) -> None:
    first, second, third = saved(home, model, 1, 2, 3)
    refused = saved(home, model, *range(4, 4 + KEPT + 3), use=False)
    assert names(home) == sorted([second, third, *refused[-KEPT:], "index.json"])
    assert first not in names(home)
    roll_back(home, "d")
    assert in_use(home) == 2
    with pytest.raises(ConfigError, match=f"version {first} .* is kept no more"):
        roll_back(home, "d")


def test_the_same_content_is_the_same_version_and_keeps_its_verdict(home: Workspace, model: Trained) -> None:
    def save(step: int, word: str, use: bool) -> str:
        about = {"ttft_ms": {"verdict": {"reason": word}}}
        return save_version(home, "d", {"ttft_ms": other(model, step)}, about, ["ttft_ms"] if use else [])

    def told() -> dict[str, str]:
        return {e["version"]: e["targets"]["ttft_ms"]["verdict"]["reason"] for e in read_index(home, "d").versions}

    one = save(1, "beats everyone", True)
    before = (home.models / "d" / "index.json").read_bytes()
    assert save(1, "no better than itself", False) == one
    assert (home.models / "d" / "index.json").read_bytes() == before
    two = save(2, "refused", False)
    assert save(1, "no better than itself", False) == one
    assert told() == {two: "refused", one: "beats everyone"}
    assert save(2, "promoted now", True) == two
    assert told() == {one: "beats everyone", two: "promoted now"}


def test_a_name_that_two_versions_begin_with_is_refused(home: Workspace, model: Trained) -> None:
    versions = saved(home, model, *range(17), use=False)  # more than there are first digits
    digits = [version[0] for version in versions]
    twice = next(digit for digit in digits if digits.count(digit) > 1)
    with pytest.raises(ConfigError, match="may be any of"):
        load_version(home, "d", twice)


@pytest.mark.parametrize("steps", [0, 1], ids=["before the version is whole", "before it is pointed to"])
def test_a_kill_while_saving_leaves_the_old_models(
    home: Workspace, model: Trained, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    saved(home, model, 1)
    kept, done, move = names(home), [], os.replace

    def killed(*paths: Path) -> None:
        if len(done) == steps:
            raise KeyboardInterrupt
        done.append(move(*paths))

    monkeypatch.setattr(os, "replace", killed)  # each step that makes something visible
    with pytest.raises(KeyboardInterrupt):
        saved(home, model, 2)
    monkeypatch.undo()
    assert in_use(home) == 1
    assert len(names(home)) == len(kept) + steps
    saved(home, model, 3)  # which removes what the killed one left
    assert in_use(home) == 3
    assert len(names(home)) == len(kept) + 1


def test_a_kill_while_rolling_back_leaves_the_old_champion(
    home: Workspace, model: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(home, model, 1, 2)

    def killed(*paths: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        roll_back(home, "d")
    assert in_use(home) == 2


def test_saving_leaves_what_another_process_is_writing_for_a_day(home: Workspace, model: Trained) -> None:
    living, dead = (home.models / "d" / f".writing-{name}" for name in ("living", "dead"))
    for directory in (living, dead):
        directory.mkdir(parents=True)
    os.utime(dead, (0, 0))
    saved(home, model, 1)
    assert (living.exists(), dead.exists()) == (True, False)


def test_models_saved_at_the_same_time_can_be_read_at_any_time(home: Workspace, model: Trained) -> None:
    saved(home, model, 9)

    def save_and_load(who: int) -> set[str]:
        targets: set[str] = set()
        for step in range(10):
            saved(home, model, (who + step) % 3)
            targets |= set(load_current(home, "d"))
        return targets

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(save_and_load, range(3))) == [{"ttft_ms"}] * 3
    assert len(read_index(home, "d").versions) == 4


def test_a_reader_overtaken_by_saves_reads_what_is_in_use_then(
    home: Workspace, model: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(home, model, 1)
    read, done = Path.read_text, []

    def overtaken(path: Path, encoding: str | None = None) -> str:
        text = read(path, encoding)
        if path.name == "index.json" and not done:
            done.append(path)
            saved(home, model, *range(2, KEPT + 4))
        return text

    monkeypatch.setattr(Path, "read_text", overtaken)
    assert in_use(home) == KEPT + 3


def test_a_version_in_use_that_is_gone_is_named(home: Workspace, model: Trained) -> None:
    (version,) = saved(home, model, 1)
    (home.models / "d" / version / "records.json").unlink()
    with pytest.raises(ArtifactError, match=f"{version} was changed after it was written"):
        load_current(home, "d")


def test_models_of_an_earlier_lodestar_are_named_and_left_alone(home: Workspace, model: Trained) -> None:
    directory = home.models / "d"
    directory.mkdir(parents=True)
    (directory / "current.json").write_text('{"version": "0123456789abcdef"}')
    (directory / "0123456789abcdef").mkdir()
    for call in (lambda: load_current(home, "d"), lambda: saved(home, model, 1)):
        with pytest.raises(ArtifactError, match="earlier version of lodestar"):
            call()
    assert (directory / "0123456789abcdef").is_dir()


def test_without_a_champion_the_error_says_what_failed_and_what_to_do(home: Workspace, model: Trained) -> None:
    assert "Run: lodestar train d" in str(current.no_champion(home, "d", "ttft_ms"))
    checks = [{"name": "linear", "passed": False}, {"name": "champion", "passed": None}]
    about = {"ttft_ms": {"verdict": {"reason": "", "checks": checks}}}
    version = save_version(home, "d", {"ttft_ms": model}, about)
    said = str(current.no_champion(home, "d", "ttft_ms"))
    assert f"the newest, {version}, failed at linear." in said
    assert said.endswith("run: lodestar models promote d")


def test_a_model_kept_by_hand_is_in_use(home: Workspace, model: Trained) -> None:
    version = save_current(home, "d", {"ttft_ms": model})
    assert read_index(home, "d").champions == {"ttft_ms": version}
    assert json.loads((home.models / "d" / "index.json").read_text())["format"] == 1


@pytest.mark.parametrize("file", ["ttft_ms.txt", "ttft_ms.json", "records.json"])
def test_a_version_whose_files_were_changed_is_neither_loaded_nor_promoted(
    home: Workspace, model: Trained, file: str
) -> None:
    first, second = saved(home, model, 1, 2)
    path = home.models / "d" / second / file
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ArtifactError, match=rf"{second} was changed after it was written.*rollback d"):
        load_current(home, "d")
    roll_back(home, "d")
    assert in_use(home) == 1
    with pytest.raises(ArtifactError, match="was changed"):
        promote(home, "d", second)
    assert in_use(home) == 1
    assert first
