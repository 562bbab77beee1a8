from __future__ import annotations

import gzip
import io
import json
import math
import tarfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_d_app import Served, ask, columns, llm_d_rows, trained, true_ms
from lodestar.data.ingest import ingest
from lodestar.data.workspace import Workspace
from lodestar.models.dataset import load_training_data
from lodestar.models.latency import LatencyModel
from lodestar.models.online.finished import Finished
from lodestar.models.online.learner import Learner, train_models
from lodestar.models.online.llm_d_rows import llm_d_features
from lodestar.models.parameters import Parameters
from lodestar.pipeline.serve.llm_d_contract import Objective
from lodestar.pipeline.serve.llm_d_window import LlmDWindow


def entries(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Every other one with a TTFT, the rest with a TPOT, as llm-d's client sends them."""
    rows = llm_d_rows(n, seed)
    sent = []
    for i, (ttft_ms, tpot_ms) in enumerate(np.transpose(true_ms(rows)).tolist()):
        label = {"actual_ttft_ms": 0.0 if i % 2 else ttft_ms, "actual_tpot_ms": tpot_ms if i % 2 else 0.0}
        sent.append(rows[i] | label | {"timestamp": "2026-08-10T12:00:00Z"})
    return sent


def test_what_is_trained_online_is_what_ingest_would_have_made_of_it(tmp_path: Path) -> None:
    sent = entries(40)
    for entry in sent[:4]:
        del entry["prefill_tokens_in_flight"]  # as older clients do
    sent[6]["input_token_length"] = 0
    served, log = Served({}), tmp_path / "rows.jsonl"
    assert ask(served.app, "/add_training_data_bulk", {"entries": sent}).status_code == 202
    (rows,) = served.learned
    log.write_text("".join(json.dumps(entry) + "\n" for entry in sent), encoding="utf-8")
    workspace = Workspace.open(tmp_path / "home")
    ingest(workspace, [log], "sent")
    data = load_training_data(workspace, "sent")
    for target, labels in (("ttft_ms", rows.ttft_ms), ("tpot_ms", rows.tpot_ms)):
        known = ~np.isnan(labels)
        assert known.sum() == (19 if target == "ttft_ms" else 20)
        np.testing.assert_array_equal(rows.features[known], data.rows[target].features)
        np.testing.assert_array_equal(labels[known], data.rows[target].latency_ms)


@pytest.mark.parametrize("sample", ["bimodal-h200", "sharegpt-h200"])
def test_a_real_log_sent_in_bulks_is_what_ingest_makes_of_it(traces: Path, tmp_path: Path, sample: str) -> None:
    log = traces / "llm-d-predictor" / f"{sample}.jsonl.gz"
    sent = [json.loads(line) for line in gzip.decompress(log.read_bytes()).splitlines()]
    served = Served({})
    for first in range(0, len(sent), 1000):
        assert ask(served.app, "/add_training_data_bulk", {"entries": sent[first : first + 1000]}).status_code == 202
    rows, workspace = Finished.joined(served.learned), Workspace.open(tmp_path / "home")
    ingest(workspace, [log], "sent")
    for target, labels in (("ttft_ms", rows.ttft_ms), ("tpot_ms", rows.tpot_ms)):
        data = load_training_data(workspace, "sent").rows[target]
        assert len(data) > 1000
        np.testing.assert_array_equal(rows.features[~np.isnan(labels)], data.features)
        np.testing.assert_array_equal(labels[~np.isnan(labels)], data.latency_ms)


def test_a_server_without_a_model_learns_one_from_what_it_is_sent() -> None:
    served, learner = Served({}), Learner()
    assert ask(served.app, "/readyz").status_code == 503
    ask(served.app, "/add_training_data_bulk", {"entries": entries(600)})
    learner.add(served.learned[0])
    assert learner.due(time.time())
    served.put(train_models(learner.training_rows(time.time()), Parameters(rounds=50)))
    assert ask(served.app, "/readyz").status_code == 200
    rows = llm_d_rows(200, seed=7)
    told = ask(served.app, "/predict/bulk/strict", {"requests": rows}).json()["predictions"]
    for truth, name in zip(true_ms(rows), ("ttft_ms", "tpot_ms"), strict=True):
        found = np.array([item[name] for item in told])
        assert np.abs(found - truth).mean() < 0.25 * np.abs(truth - truth.mean()).mean()  # far from a constant


def test_rows_become_finished_requests_by_our_clock() -> None:
    served, before_s = Served(), time.time()
    told = ask(served.app, "/add_training_data_bulk", {"entries": entries(4)})
    assert (told.status_code, told.json()) == (202, {"message": "Accepted 4 training samples."})
    (rows,) = served.learned
    assert np.isnan(rows.ttft_ms).tolist() == [False, True, False, True]
    assert np.isnan(rows.tpot_ms).tolist() == [True, False, True, False]
    assert rows.kind.tolist() == [""] * 4
    assert not rows.censored.any()
    assert ((rows.finished_at_s >= before_s) & (rows.finished_at_s <= time.time())).all()
    lasted_ms = np.nansum([rows.ttft_ms, rows.tpot_ms], axis=0)
    np.testing.assert_allclose((rows.finished_at_s - rows.decided_at_s) * 1000, lasted_ms, atol=0.01)


def test_a_row_without_a_latency_or_a_prompt_is_told_and_not_learned() -> None:
    served, sent = Served(), entries(3)
    sent[0] |= {"actual_ttft_ms": 0, "actual_tpot_ms": 0}
    sent[1]["input_token_length"] = 0
    told = ask(served.app, "/add_training_data_bulk", {"entries": sent})
    assert told.json() == {"message": "Accepted 3 training samples.", "without_latency": 1, "without_prompt": 1}
    assert len(served.learned[0]) == 1


def test_a_server_that_does_not_learn_says_so() -> None:
    served = Served()
    served.learning = False
    told = ask(served.app, "/add_training_data_bulk", {"entries": entries(2)})
    assert told.status_code == 202
    assert told.json()["note"].startswith("learning is off")
    assert not served.learned
    assert ask(served.app, "/data/status").json()["learning"] is False


@pytest.mark.parametrize(
    ("field", "value"),
    [("actual_ttft_ms", -1.0), ("actual_tpot_ms", math.inf), ("timestamp", "noon"), ("kv_cache_percentage", 25.0)],
)
def test_one_wrong_row_refuses_them_all_and_is_named(field: str, value: object) -> None:
    served, sent = Served(), entries(3)
    sent[1][field] = value
    told = ask(served.app, "/add_training_data_bulk", {"entries": sent})
    assert told.status_code == 422
    assert told.json()["detail"][0]["loc"] == ["body", "entries", 1, field]
    assert not served.learned
    assert ask(served.app, "/data/status").json()["training_data"]["total_samples"] == 0


def test_the_data_status_counts_by_llm_ds_buckets() -> None:
    served, sent = Served(), entries(4)
    sent[0] |= {"num_request_waiting": 0, "kv_cache_percentage": 1.0, "prefix_cache_score": 1.0}
    sent[2] |= {"num_request_waiting": 11, "kv_cache_percentage": 0.07, "prefix_cache_score": 0.24}
    assert ask(served.app, "/add_training_data_bulk", {"entries": []}).status_code == 202
    ask(served.app, "/add_training_data_bulk", {"entries": sent})
    told = ask(served.app, "/data/status").json()
    assert told["training_data"] == {"ttft_samples": 2, "tpot_samples": 2, "total_samples": 4}
    assert told["test_data"] == {"ttft_samples": 0, "tpot_samples": 0, "total_samples": 0}
    assert told["bucket_distribution"] == {"queue_0_cache_19_prefix_3": 1, "queue_4_cache_1_prefix_0": 1}
    assert (told["ensemble"]["ensemble_active"], told["ensemble"]["ttft_noqueue_samples"]) == (False, 1)
    assert told["ensemble"]["ttft_queued_samples"] == 1
    assert told["metrics"] == {"ttft_scores_count": 1, "tpot_scores_count": 1}
    assert told["model_ready"] is True
    assert told["last_retrain"].endswith("Z")


@pytest.mark.parametrize("objective", [Objective(), Objective("quantile", 0.9)])
def test_rows_are_scored_by_the_model_that_has_not_learned_them(objective: Objective) -> None:
    served, sent = Served(objective=objective), entries(60, seed=9)
    ask(served.app, "/add_training_data_bulk", {"entries": sent})
    model, features = trained()["ttft_ms"], llm_d_features(columns(sent[::2]))
    error = np.array([entry["actual_ttft_ms"] for entry in sent[::2]], dtype=np.float64)
    error -= model.predict(features) if objective.head is None else model.predict_quantile(features, "p90")
    loss = np.abs(error) if objective.head is None else np.where(error > 0, 0.9 * error, -0.1 * error)
    assert ask(served.app, "/data/status").json()["scores"]["ttft"] == [pytest.approx(loss.mean(), rel=1e-9)]


def test_flush_forgets_what_it_is_told_to() -> None:
    served = Served()
    ask(served.app, "/add_training_data_bulk", {"entries": entries(4)})
    kept = ask(served.app, "/flush", {"flush_training_data": False, "flush_metrics": False, "reason": "look"}).json()
    assert (kept["ttft_training_samples_flushed"], kept["metrics_cleared"], kept["reason"]) == (0, False, "look")
    assert len(served.learned) == 1
    told = ask(served.app, "/flush", b"").json()
    assert set(told) == {
        "success", "flushed_at", "reason", "ttft_training_samples_flushed", "tpot_training_samples_flushed",
        "ttft_test_samples_flushed", "tpot_test_samples_flushed", "metrics_cleared", "message",
    }  # fmt: skip
    assert (told["success"], told["ttft_training_samples_flushed"], told["tpot_training_samples_flushed"]) == (
        True, 2, 2,
    )  # fmt: skip
    assert told["message"].startswith("Successfully flushed: 2 TTFT and 2 TPOT training samples")
    assert not served.learned
    after = ask(served.app, "/data/status").json()
    assert (after["training_data"]["total_samples"], after["metrics"]["ttft_scores_count"]) == (0, 0)
    assert ask(served.app, "/flush", {"flush_test_data": "perhaps"}).status_code == 422


def test_memory_is_bounded_and_the_oldest_rows_go() -> None:
    served = Served({})
    served.llm_d = LlmDWindow(most_rows=100)
    for batch in range(3):
        sent = [entry | {"num_request_waiting": batch} for entry in entries(2)] * 70
        assert ask(served.app, "/add_training_data_bulk", {"entries": sent}).status_code == 202
    told = ask(served.app, "/data/status").json()
    assert told["training_data"] == {"ttft_samples": 100, "tpot_samples": 100, "total_samples": 200}
    queues = Counter(name.split("_")[1] for name in told["bucket_distribution"])
    assert queues == {"1": 1}  # one and two requests waiting are one bucket; those with none waiting are gone
    assert (told["ensemble"]["ttft_noqueue_samples"], told["ensemble"]["ttft_queued_samples"]) == (0, 100)
    served.llm_d.add("tpot", np.ones((250, 4)))
    assert served.llm_d.rows("tpot").tolist() == [[1.0] * 4] * 100


def test_the_debug_page_shows_ttft_by_prefix_score() -> None:
    served = Served()
    assert ask(served.app, "/debug/prefix_distribution").json() == {"error": "No training samples available"}
    ask(served.app, "/add_training_data_bulk", {"entries": entries(200)})
    told = ask(served.app, "/debug/prefix_distribution").json()
    counts = {name: part["count"] for name, part in told["distribution_by_prefix_range"].items()}
    assert list(counts) == ["0-0.25", "0.25-0.5", "0.5-0.75", "0.75-1"]
    assert (sum(counts.values()), counts["0.75-1"]) == (100, 0)
    assert told["overall_stats"]["total_samples"] == 100


def test_an_export_is_what_our_own_models_are_read_from(tmp_path: Path) -> None:
    told = ask(Served().app, "/model/export")
    assert (told.status_code, told.headers["content-type"]) == (200, "application/gzip")
    with tarfile.open(fileobj=io.BytesIO(told.content)) as archive:
        archive.extractall(tmp_path, filter="data")
    metadata = json.loads((tmp_path / "metadata.json").read_text(encoding="utf-8"))
    assert set(metadata) == {"model_type", "quantile_alpha", "exported_at", "ttft_samples", "tpot_samples"}
    features = llm_d_features(columns(llm_d_rows(20)))
    for target, model in trained().items():
        read = LatencyModel.load(tmp_path, target)
        np.testing.assert_array_equal(read.predict_quantiles(features), model.predict_quantiles(features))
    assert ask(Served({}).app, "/model/export").status_code == 503


def test_a_download_is_text_and_info_and_list_describe_it() -> None:
    app = Served().app
    told, info = ask(app, "/model/ttft/download"), ask(app, "/model/ttft/info").json()
    read = LatencyModel.from_dict(told.json()["model"], told.json()["trees"])
    features = llm_d_features(columns(llm_d_rows(20)))
    np.testing.assert_array_equal(read.predict(features), trained()["ttft_ms"].predict(features))
    assert {"model_name", "path", "size_bytes", "last_modified", "exists", "model_type", "quantile"} <= set(info)
    assert info["size_bytes"] == len(told.content)
    listed = ask(app, "/models/list").json()["models"]
    assert {name for name, file in listed.items() if file["exists"]} == {"ttft", "tpot"}
    assert listed["ttft"]["size_bytes"] == len(told.content)
    status = ask(app, "/model/download/info").json()
    assert status["model_status"] == {"ttft_model_ready": True, "tpot_model_ready": True}
    assert (status["model_type"], status["quantile"]) == ("lightgbm", 0.9)
    for page in status["available_endpoints"]["lightgbm"].values():
        assert ask(app, page).status_code == 200


@pytest.mark.parametrize("page", ["info", "download"])
@pytest.mark.parametrize(
    ("name", "why"),
    [("ttft_scaler", "need no scaler"), ("tpot_gated", "no gated ones"), ("e2e", "Unknown"), ("..%2f", "Unknown")],
)
def test_what_there_is_not_is_not_found_and_says_why(page: str, name: str, why: str) -> None:
    told = ask(Served().app, f"/model/{name}/{page}")
    assert told.status_code == 404
    if "%" not in name:
        assert why in told.json()["detail"]


def test_the_trees_are_those_that_answer() -> None:
    mean, high = Served(), Served(objective=Objective("quantile", 0.99))
    model = trained()["ttft_ms"]
    assert ask(mean.app, "/model/ttft/lgb/txt").text == model.texts()[""]
    assert ask(high.app, "/model/ttft/lgb/txt").text == model.texts()["p90"]  # the P99 has its shape
    splits = ask(mean.app, "/model/ttft/lgb/importances").json()
    assert splits == dict(zip(model.features, model.booster.feature_importance("split").tolist(), strict=True))
    told = ask(mean.app, "/model/tpot/xgb/json")
    assert (told.status_code, told.json()["detail"][:24]) == (404, "TPOT model is not XGBoos")
    assert ask(mean.app, "/model/e2e/lgb/txt").status_code == 404
    assert ask(Served({}).app, "/model/ttft/lgb/importances").status_code == 404
