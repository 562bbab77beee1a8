from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lodestar.data.errors import ConfigError
from lodestar.data.workspace import Workspace
from lodestar.features.definitions import FEATURES
from lodestar.models.fit import fit
from lodestar.models.parameters import Parameters
from lodestar.models.registry.current import Trained, champions, save_version
from lodestar.models.registry.promotion import Check, Verdict
from lodestar.models.rows import Rows
from lodestar.pipeline.models_cli import models_app

GOOD = Verdict(
    True,
    "better than all",
    700,
    (
        Check("champion", True, "better than the champion", 700, 12.5, 4.0, 21.0, 0.0),
        Check("linear", True, "better than linear regression", 700, 33.0, 10.0, 50.0, 0.0),
        Check("coverage", True, "P90 covers 0.901", 700, 0.901, 0.88, 0.92, 0.88, 0.92),
        Check("saturation", None, "bias under load not judged", 3),
    ),
)
BAD = replace(
    GOOD,
    promoted=False,
    reason="no better than the champion: it stays",
    checks=(replace(GOOD.checks[0], passed=False, value=-1.0, low=-5.0, high=3.0), *GOOD.checks[1:]),
)


@pytest.fixture(scope="module")
def model() -> Trained:
    n, rng = 100, np.random.default_rng(0)
    at = np.arange(n, dtype=np.float64)
    rows = Rows(
        request_index=np.arange(n),
        features=rng.random((n, len(FEATURES))),
        latency_ms=rng.uniform(10, 20, n),
        censored=np.zeros(n, dtype=np.bool_),
        propensity=np.full(n, np.nan),
        arrived_at_s=at,
        finished_at_s=at,
        requests=n,
        excluded={},
    )
    fitted, _ = fit(rows, "ttft_ms", Parameters(rounds=1), 0, heads=False)
    return Trained(fitted, fitted, {"requests_seen": n, "data_fingerprint": "f" * 64})


@pytest.fixture
def versions(tmp_path: Path, model: Trained) -> list[str]:
    """Two versions that were in use, and a third that was refused."""
    workspace = Workspace.open(tmp_path)
    told = []
    for step, verdict in enumerate((GOOD, GOOD, BAD)):
        trained = {"ttft_ms": replace(model, model=replace(model.model, mean_ratio=1.0 + step))}
        about = {"ttft_ms": {"mode": "fitted", "reason": "asked for", "verdict": asdict(verdict)}}
        told.append(save_version(workspace, "d", trained, about, ["ttft_ms"] if verdict.promoted else []))
    return told


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run ``lodestar models …`` and return its JSON document."""

    def called(*words: str) -> Any:
        models_app(args=[*words, "--json", "--home", str(tmp_path)], standalone_mode=False)
        return json.loads(capsys.readouterr().out)

    return called


def table(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    models_app(args=list(words), standalone_mode=False)
    return capsys.readouterr().out


@pytest.mark.parametrize("words", [(), ("d",), ("list", "d")])
def test_versions_are_listed_newest_first_with_what_is_in_use(
    versions: list[str], run: Callable[..., Any], words: tuple[str, ...]
) -> None:
    rows = run(*words)
    assert [row["version"] for row in rows] == versions[::-1]
    assert [row["aliases"] for row in rows] == [["challenger"], ["champion"], []]
    assert [row["verdict"]["promoted"] for row in rows] == [False, True, True]
    assert [len(row["in_use"]) for row in rows] == [0, 1, 1]
    assert rows[1]["in_use"][0]["to"] is None
    assert rows[2]["in_use"][0]["to"] == rows[1]["in_use"][0]["from"]
    assert rows[2]["in_use"][0]["why"] == "promoted by the gate"


def test_the_table_shows_the_numbers_that_decided_at_80_columns(
    versions: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = table(capsys, "d", "--home", str(tmp_path))
    assert all(version in shown for version in versions)
    assert all(words in shown for words in ("champion", "challenger", "promoted", "refused"))
    assert all(words in shown for words in ("+12.5", "+4.0 to", "+21.0", "−1.00", "−5.00 to", "+3.00", "90.1"))
    assert max(map(len, shown.splitlines())) <= 80


def test_one_version_is_shown_check_by_check(
    versions: list[str], run: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (row,) = run("show", "d", versions[2][:6])
    assert row["verdict"]["checks"][0]["value"] == -1.0
    shown = " ".join(table(capsys, "show", "d", versions[2][:6], "--home", str(tmp_path)).split())
    assert "verdict no better than the champion: it stays" in shown
    assert "in use never" in shown
    assert "saturation not judged" in shown


def test_rollback_is_one_command(versions: list[str], run: Callable[..., Any], tmp_path: Path) -> None:
    done = run("rollback", "d")
    assert done == {
        "dataset": "d",
        "why": "rolled back",
        "before": {"ttft_ms": versions[1]},
        "champions": {"ttft_ms": versions[0]},
    }
    assert champions(Workspace.open(tmp_path), "d") == {"ttft_ms": versions[0]}
    assert [row["aliases"] for row in run("d")] == [["challenger"], [], ["champion"]]


def test_a_refused_version_can_be_promoted_by_hand_and_rolled_back_from(
    versions: list[str], run: Callable[..., Any]
) -> None:
    assert run("promote", "d")["champions"] == {"ttft_ms": versions[2]}
    assert run("rollback", "d", "--to", versions[0])["champions"] == {"ttft_ms": versions[0]}
    assert run("promote", "d", versions[1][:6])["why"] == "promoted by hand"


def test_where_there_are_no_models_it_says_so(
    run: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == []
    assert "no models yet. Run: lodestar train DATASET" in table(capsys, "--home", str(tmp_path))
    with pytest.raises(ConfigError, match="dataset 'd' is not known"):
        run("d")
    for words in (("show", "d", "x"), ("promote", "d"), ("rollback", "d")):
        with pytest.raises(ConfigError, match="'d' has no trained model"):
            run(*words)


def test_a_target_without_a_champion_is_named_with_the_next_step(
    tmp_path: Path, model: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    save_version(Workspace.open(tmp_path), "d", {"ttft_ms": model}, {"ttft_ms": {"verdict": asdict(BAD)}})
    shown = " ".join(table(capsys, "d", "--home", str(tmp_path)).split())
    assert "No TTFT model is in use: none passed the gate" in shown
    assert "lodestar models promote d" in shown
