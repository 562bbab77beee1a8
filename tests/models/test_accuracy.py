"""On real logs: as good as linear regression where it interpolates, better where the router changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from lodestar.data.ingest import ingest
from lodestar.data.workspace import Workspace
from lodestar.models.dataset import load_training_data
from lodestar.models.evaluation.held_out import evaluate
from lodestar.models.fit import fit
from lodestar.models.parameters import Parameters
from lodestar.models.rows import Rows

ARMS = [(load, arm) for load in ("sharing09", "sharing47") for arm in ("random", "prefix", "rl")]
TARGETS = ("ttft_ms", "tpot_ms")


@pytest.fixture(scope="module")
def arms(traces: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, str], Rows]:
    """Rows of both targets of every real arm."""
    workspace = Workspace.open(tmp_path_factory.mktemp("arms"))
    rows = {}
    for load, arm in ARMS:
        ingest(workspace, [traces / "lodestar" / load / f"{arm}.csv.gz"], f"{load}-{arm}")
        data = load_training_data(workspace, f"{load}-{arm}")
        rows |= {(load, arm, target): data.rows[target] for target in TARGETS}
    return rows


def measured(training: Rows, held_out: Rows, target: str) -> dict[str, dict[str, float]]:
    model, _ = fit(training, target, Parameters(), seed=0)
    found: dict[str, dict[str, float]] = evaluate(model, training, held_out)
    return found


def test_ttft_of_the_last_30_percent_is_predicted_better_than_by_linear_regression(arms: dict) -> None:
    training, newest = arms["sharing09", "random", "ttft_ms"].split_share(0.7)
    found = measured(training, newest, "ttft_ms")
    assert found["model"]["r2_log"] >= 0.90
    assert found["model"]["mae_ms"] <= found["linear"]["mae_ms"]
    assert found["model"]["mae_ms"] <= 0.2 * found["constant"]["mae_ms"]


@pytest.mark.parametrize(("load", "arm"), ARMS)
def test_no_real_arm_is_predicted_much_worse_than_by_linear_regression(arms: dict, load: str, arm: str) -> None:
    training, newest = arms[load, arm, "ttft_ms"].split_share(0.7)
    found = measured(training, newest, "ttft_ms")
    assert found["model"]["r2_log"] >= found["linear"]["r2_log"] - 0.02
    assert found["model"]["mae_ms"] <= 1.03 * found["linear"]["mae_ms"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("arm", ["prefix", "rl"])
@pytest.mark.parametrize("load", ["sharing09", "sharing47"])
def test_learned_under_random_routing_it_holds_under_another_router(
    arms: dict, load: str, arm: str, target: str
) -> None:
    found = measured(arms[load, "random", target], arms[load, arm, target], target)
    assert found["model"]["mae_ms"] <= found["linear"]["mae_ms"]
    assert found["model"]["r2_log"] >= found["linear"]["r2_log"]
