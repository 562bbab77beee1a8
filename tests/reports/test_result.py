from __future__ import annotations

from pathlib import Path

import pytest

from lodestar.data.errors import ArtifactError, ConfigError
from lodestar.data.workspace import Workspace
from lodestar.reports.result import latest_replay, read_result


def test_the_latest_replay_is_the_last_by_name(tmp_path: Path, make_replay) -> None:
    make_replay("20261123-203000-sharing09")
    newest = make_replay("20261124-080000-azure")
    (tmp_path / "replays" / "20261125-000000-unfinished").mkdir()
    assert latest_replay(Workspace.open(tmp_path)) == newest


def test_no_replay_yet_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run `lodestar replay DATASET` first"):
        latest_replay(Workspace.open(tmp_path))


def test_a_directory_without_a_result_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no result\.json; expected the directory of a replay"):
        read_result(tmp_path)


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(ArtifactError, match="is not JSON"):
        read_result(tmp_path)
