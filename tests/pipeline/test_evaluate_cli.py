"""`lodestar evaluate` on a small recorded log, from the store to the table, the page and MLflow."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
import typer

from lodestar.data.errors import ConfigError
from lodestar.data.ingest import ingest
from lodestar.data.workloads.sharing import sharing_workload
from lodestar.data.workspace import Workspace
from lodestar.models.dataset import load_training_data
from lodestar.models.engine import EngineModel
from lodestar.models.evaluation.evaluation import Settings, evaluate_model
from lodestar.models.fit import fit
from lodestar.models.parameters import Parameters
from lodestar.models.registry.current import Trained, save_version
from lodestar.models.registry.record import record_of
from lodestar.models.shipping.ship import ship
from lodestar.pipeline.evaluate_cli import evaluate
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.record import record_replay

ENGINE = EngineModel.preset("l40s-llama-3.1-8b")
REQUESTS, CUT = 400, 280


def cluster(seed: int) -> Cluster:
    return Cluster.of([ENGINE] * 3, sharing_workload(REQUESTS, rate_per_s=8.0, sharing_ratio=0.4, seed=seed))


def save(workspace: Workspace, parameters: Parameters, champions: list[str]) -> None:
    data = load_training_data(workspace, "made", ["ttft_ms"])
    rows = data.rows["ttft_ms"]
    twin, _ = fit(rows.split(CUT)[0], "ttft_ms", parameters, 0)
    model, _ = fit(rows, "ttft_ms", parameters, 0)
    trained = Trained(model, twin, record_of(data, rows, CUT, parameters, 0, {}))
    save_version(workspace, "made", {"ttft_ms": trained}, champions=champions)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The datasets 'made', with a champion and a worse challenger, and 'other'; routed at random."""
    folder = tmp_path_factory.mktemp("evaluating")
    workspace = Workspace.open(folder / "home")
    for seed, name in enumerate(("made", "other")):
        record_replay(folder / f"{name}.jsonl", cluster(seed), make_policy("random"), 1)
        ingest(workspace, [folder / f"{name}.jsonl"], name)
    save(workspace, Parameters(rounds=40, min_data_in_leaf=10), ["ttft_ms"])
    save(workspace, Parameters(rounds=1, features=("decode_tokens",)), [])
    ship(workspace, "made", workspace.home / "artifact", ungated=True)
    return workspace


@pytest.fixture
def run(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command in this process and return its stdout."""
    app = typer.Typer(rich_markup_mode=None)
    app.command()(evaluate)

    def call(*arguments: str) -> str:
        app(args=[*arguments, "--home", str(workspace.home)], standalone_mode=False)
        return capsys.readouterr().out

    return call


def test_a_whole_evaluation_is_json_and_repeats_itself(workspace: Workspace) -> None:
    settings = Settings(against="made@challenger", seeds=2, seed=7)
    document = evaluate_model(workspace, "made", "made", settings).to_dict()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    found = document["targets"]["ttft_ms"]
    assert found["rows"] == REQUESTS - CUT
    assert set(found["predictors"]) == {"model", "against", "constant", "linear"}
    assert found["predictors"]["model"]["mae_ms"]["value"] < found["predictors"]["constant"]["mae_ms"]["value"]
    assert found["ranking"]["model"]["rank_correlation"]["low"] > 0.0
    assert found["ranking"]["model"]["snips"]["value"] < 0.0
    assert found["controls"]["seeds"]["seeds"] == [7, 8]
    assert not found["controls"]["shuffled"]["leaks"]
    assert {line["metric"] for line in found["differences"]} >= {"mae_ms", "p90.pinball_ms", "snips"}
    assert {line["waiting_requests"] for line in found["surface"]} > {"all"}
    repeated = evaluate_model(workspace, "made", "made", settings).to_dict()
    assert {**repeated, "seconds": 0} == {**document, "seconds": 0}


def test_the_command_shows_keeps_and_logs_what_it_found(
    workspace: Workspace, run: Callable[..., str], tmp_path: Path
) -> None:
    page = tmp_path / "new" / "page.html"
    shown = json.loads(
        run("made", "other", "--against", "made@challenger", "--seeds", "1", "--to", str(page), "--json")
    )
    assert (shown["model"], shown["against"], shown["dataset"], shown["to"]) == (
        "made", "made@challenger", "other", str(page))  # fmt: skip
    found = shown["targets"]["ttft_ms"]
    assert found["rows"] == REQUESTS
    assert "made@challenger" in page.read_text()
    mlflow.set_tracking_uri(workspace.tracking_uri)
    logged = mlflow.get_run(shown["run_id"])
    assert logged.info.status == "FINISHED"
    assert logged.data.tags["kind"] == "evaluation"
    metrics = logged.data.metrics
    for name in ("mae_ms", "mae_ms.low", "mae_ms.high"):
        inner, _, end = name.partition(".")
        assert metrics[f"ttft_ms/model/{name}"] == found["predictors"]["model"][inner][end or "value"]
    assert metrics["ttft_ms/difference/mae_ms"] == found["differences"][0]["difference"]["value"]
    files = {file.path for file in mlflow.MlflowClient().list_artifacts(shown["run_id"])}
    assert {"evaluation.html", "evaluation.json", "ttft_ms"} <= files


def test_an_artifact_is_judged_by_its_directory(workspace: Workspace, run: Callable[..., str]) -> None:
    shown = run(str(workspace.home / "artifact"), "other", "--seeds", "0", "--target", "ttft_ms")
    assert "trained on made; that none of its requests is in other too" in shown.replace("\n", " ").replace("  ", " ")
    assert "no refits were asked for" in shown


def test_what_cannot_be_judged_is_refused_by_name(run: Callable[..., str]) -> None:
    with pytest.raises(ConfigError, match=r"--newest 1\.5"):
        run("made", "made", "--newest", "1.5")
    with pytest.raises(ConfigError, match="'ttft' is not known"):
        run("made", "made", "--target", "ttft")
    with pytest.raises(ConfigError, match="tpot_ms"):
        run("made", "made", "--target", "tpot_ms")
    with pytest.raises(ConfigError, match="'nowhere' is not known"):
        run("made", "nowhere")
    with pytest.raises(ConfigError, match="did you mean 'made'"):
        run("mode", "made")
