"""From models in use to an artifact: what it tells of them, the alias in the registry, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from lodestar.data.errors import ConfigError
from lodestar.data.workspace import Workspace
from lodestar.models.candidate import Outcome, full_fit
from lodestar.models.dataset import TrainingData
from lodestar.models.parameters import Parameters
from lodestar.models.registry.current import champions, save_current
from lodestar.models.registry.promotion import Verdict
from lodestar.models.registry.releases import keep
from lodestar.models.registry.tracking import log_outcome, tracked_run
from lodestar.models.rows import Rows
from lodestar.models.shipping.check import check
from lodestar.models.shipping.ship import ship

POLICY = {"name": "lodestar-online", "settings": {"exploration": 0.02}}


@pytest.fixture
def fitted(make_rows: Callable[..., Rows]) -> Outcome:
    """What a training made."""
    data = TrainingData("made", "f" * 64, [str(i) for i in range(300)], {"ttft_ms": make_rows(300)}, {}, {})
    return full_fit(data, "ttft_ms", Parameters(rounds=5, min_data_in_leaf=20), 0, None, "")


def test_a_version_that_passed_is_shipped_as_asked_and_called_so_in_the_registry(
    fitted: Outcome, workspace: Workspace, tmp_path: Path
) -> None:
    outcome = replace(fitted, verdict=Verdict(True, "better than all", 90, (), {"challenger": 10.0}))
    with tracked_run(workspace, "fitted", {}):
        logged = log_outcome("made", "ttft_ms", outcome, "a log")
    version = keep(workspace, "made", {"ttft_ms": outcome}, {"ttft_ms": logged})
    report = ship(workspace, "made", f"file://{tmp_path}/far/x.tar", policy=POLICY)
    found = check(tmp_path / "far" / "x.tar")
    gate = found["gate"]["ttft_ms"]
    assert (gate["version"], gate["passed"], gate["in_use"]) == (version, True, "promoted by the gate")
    assert (found["policy"], found["version"], found["dataset"]) == (POLICY, report.version, "made")
    assert found["trained_at_s"] > 1.7e9
    assert report.gated
    assert report.registered == {"ttft_ms": "made-ttft_ms version 1"}
    client = MlflowClient(workspace.tracking_uri)
    named = client.get_model_version_by_alias("made-ttft_ms", "shipped")
    assert (int(named.version), named.tags["artifact"]) == (1, report.version)
    assert set(client.get_registered_model("made-ttft_ms").aliases) == {"champion", "challenger", "shipped"}


def test_what_is_refused_leaves_nothing_behind(fitted: Outcome, workspace: Workspace, tmp_path: Path) -> None:
    assert fitted.trained is not None
    save_current(workspace, "made", {"ttft_ms": fitted.trained})
    assert list(champions(workspace, "made")) == ["ttft_ms"]
    for said, asked in {
        "did not pass the promotion gate: the gate was not run; .* add --ungated$": {},
        "dataset 'made' has no trained tpot_ms model": {"objective": "tpot_ms"},
        "export 'treelight' is not known; did you mean 'treelite'": {"ungated": True, "exports": ["treelight"]},
    }.items():
        with pytest.raises(ConfigError, match=said):
            ship(workspace, "made", tmp_path / "x.tar", **asked)
    assert not (tmp_path / "x.tar").exists()
