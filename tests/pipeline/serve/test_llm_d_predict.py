from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_d_app import Served, ask, columns, llm_d_rows, trained, true_ms
from lodestar.data.errors import ConfigError
from lodestar.models.online.llm_d_rows import llm_d_features
from lodestar.pipeline.serve.llm_d_contract import Objective

ITEM = {"ttft_ms", "tpot_ms", "predicted_at", "model_type", "objective_type", "quantile", "last_model_load"}
COUNTS = {"total_requests", "successful_predictions", "failed_predictions", "processing_time_ms"}
SHARES = st.floats(0.0, 1.0)
WHOLE = st.integers(0, 2**63 - 1) | st.integers(0, 5000)
ROW = st.fixed_dictionaries(
    {
        "kv_cache_percentage": SHARES,
        "input_token_length": st.integers(0, 200_000),
        "num_request_waiting": st.integers(0, 500),
        "num_request_running": st.integers(0, 500),
        "num_tokens_generated": WHOLE,
        "prefix_cache_score": SHARES,
    },
    optional={
        "prefill_tokens_in_flight": st.integers(0, 10_000_000),
        "decode_tokens_in_flight": st.integers(0, 10_000_000),
        "encoder_matched_size": WHOLE,
        "encoder_input_size": WHOLE,
        "pod_type": st.sampled_from(["", "prefill", "decode", None]),
    },
)
OBJECTIVES = {
    "mean": Objective(),
    "p50": Objective("quantile", 0.5),
    "p90": Objective("quantile", 0.9),
    "p99": Objective("quantile", 0.99),
}
SERVED = {name: Served(objective=objective) for name, objective in OBJECTIVES.items()}


def both_ms(item: dict[str, Any]) -> tuple[float, float]:
    return item["ttft_ms"], item["tpot_ms"]


@pytest.mark.parametrize("name", OBJECTIVES)
@given(rows=st.lists(ROW, min_size=1, max_size=20))
@settings(max_examples=15, deadline=None)
def test_every_route_says_what_the_model_says(name: str, rows: list[dict[str, Any]]) -> None:
    app, features = SERVED[name].app, llm_d_features(columns(rows))
    expected = [
        model.predict(features) if name == "mean" else model.predict_quantile(features, name)
        for model in trained().values()
    ]
    strict = ask(app, "/predict/bulk/strict", {"requests": rows}).json()["predictions"]
    loose = ask(app, "/predict/bulk", {"requests": rows}).json()["predictions"]
    single = [ask(app, "/predict", row).json() for row in rows[:3]]
    np.testing.assert_allclose([both_ms(item) for item in strict], np.transpose(expected), rtol=1e-9)
    assert [both_ms(item) for item in loose] == [both_ms(item) for item in strict]
    assert [both_ms(item) for item in single] == [both_ms(item) for item in strict[:3]]


@pytest.mark.parametrize("route", ["/predict", "/predict/bulk", "/predict/bulk/strict"])
def test_no_route_drops_tokens_in_flight(route: str) -> None:
    idle, busy = llm_d_rows(1)[0] | {"prefill_tokens_in_flight": 0}, llm_d_rows(1)[0]
    busy = busy | {"prefill_tokens_in_flight": 12_000, "pod_type": "decode", "encoder_input_size": 7}
    found = []
    for row in (idle, busy):
        told = ask(SERVED["mean"].app, route, row if route == "/predict" else {"requests": [row]}).json()
        found.append((told if route == "/predict" else told["predictions"][0])["ttft_ms"])
    truth, _ = true_ms([idle, busy])
    np.testing.assert_allclose(found, truth, rtol=0.15)
    assert found[1] - found[0] == pytest.approx(1200, rel=0.15)


def test_the_shapes_are_those_of_llm_d() -> None:
    app, rows = SERVED["p90"].app, llm_d_rows(3)
    one, strict = ask(app, "/predict", rows[0]), ask(app, "/predict/bulk/strict", {"requests": rows})
    loose = ask(app, "/predict/bulk", {"requests": rows})
    assert (one.status_code, strict.status_code, loose.status_code) == (200, 200, 200)
    assert set(one.json()) == ITEM
    assert set(strict.json()) == {"predictions"} | COUNTS
    assert set(loose.json()) == {"predictions", "errors"} | COUNTS
    assert all(set(item) == ITEM for item in strict.json()["predictions"] + loose.json()["predictions"])
    told = one.json()
    assert (told["model_type"], told["objective_type"], told["quantile"]) == ("lightgbm", "quantile", 0.9)
    assert told["predicted_at"].endswith("Z")
    assert (strict.json()["total_requests"], strict.json()["failed_predictions"]) == (3, 0)


def test_a_bulk_says_which_rows_are_wrong_and_predicts_the_others() -> None:
    rows = llm_d_rows(4)
    rows[1] = rows[1] | {"kv_cache_percentage": 1.5, "num_request_waiting": -1}
    rows[3] = "no row"
    told = ask(SERVED["mean"].app, "/predict/bulk", {"requests": rows})
    assert told.status_code == 200
    found = told.json()
    assert [item is None for item in found["predictions"]] == [False, True, False, True]
    assert [error["index"] for error in found["errors"]] == [1, 3]
    assert [error["request"] for error in found["errors"]] == [rows[1], rows[3]]
    assert "kv_cache_percentage" in found["errors"][0]["error"]
    assert "num_request_waiting" in found["errors"][0]["error"]
    counts = [found[name] for name in ("total_requests", "successful_predictions", "failed_predictions")]
    assert counts == [4, 2, 2]


def test_a_strict_bulk_names_the_first_wrong_row_and_predicts_none() -> None:
    rows = llm_d_rows(3)
    rows[1] = rows[1] | {"prefix_cache_score": -0.1}
    told = ask(SERVED["mean"].app, "/predict/bulk/strict", {"requests": rows})
    assert told.status_code == 422
    assert [fault["loc"] for fault in told.json()["detail"]] == [["body", "requests", 1, "prefix_cache_score"]]


@pytest.mark.parametrize("field", ["kv_cache_percentage", "input_token_length", "num_tokens_generated"])
@pytest.mark.parametrize("value", [None, -1, 2**63, "many", math.nan, math.inf, [], {}])
def test_a_field_out_of_bounds_is_named(field: str, value: object) -> None:
    told = ask(SERVED["mean"].app, "/predict", llm_d_rows(1)[0] | {field: value})
    assert told.status_code == 422
    assert told.json()["detail"][0]["loc"] == ["body", field]


@pytest.mark.parametrize("route", ["/predict/bulk", "/predict/bulk/strict"])
@pytest.mark.parametrize(("count", "status"), [(0, 422), (1, 200), (10_000, 200), (10_001, 422)])
def test_a_bulk_holds_one_to_ten_thousand_rows(route: str, count: int, status: int) -> None:
    told = ask(SERVED["mean"].app, route, {"requests": llm_d_rows(1) * count})
    assert told.status_code == status
    if status == 200:
        assert len({both_ms(item) for item in told.json()["predictions"]}) == 1
        assert told.json()["successful_predictions"] == count


def test_the_largest_numbers_still_have_finite_predictions() -> None:
    rows = llm_d_rows(2)
    rows[1] |= dict.fromkeys(("prefill_tokens_in_flight", "decode_tokens_in_flight", "num_request_running"), 2**63 - 1)
    for route in ("/predict/bulk", "/predict/bulk/strict"):
        told = ask(SERVED["mean"].app, route, {"requests": rows})
        assert told.status_code == 200
        assert all(math.isfinite(ms) and ms > 0 for item in told.json()["predictions"] for ms in both_ms(item))


def test_a_model_that_comes_to_nothing_finite_says_so_row_by_row() -> None:
    broken = replace(trained()["tpot_ms"], mean_ratio=math.inf)
    served = Served(trained() | {"tpot_ms": broken})
    rows = llm_d_rows(2)
    assert ask(served.app, "/predict", rows[0]).status_code == 422
    assert "row 0: the model" in ask(served.app, "/predict/bulk/strict", {"requests": rows}).json()["detail"]
    told = ask(served.app, "/predict/bulk", {"requests": rows}).json()
    assert (told["predictions"], [error["index"] for error in told["errors"]]) == ([None, None], [0, 1])


@pytest.mark.parametrize("route", ["/predict", "/predict/bulk", "/predict/bulk/strict"])
def test_before_a_model_is_trained_nothing_is_predicted(route: str) -> None:
    empty, row = Served({}), llm_d_rows(1)[0]
    told = ask(empty.app, route, row if route == "/predict" else {"requests": [row]})
    assert told.status_code == 503
    assert "no trained model of ttft_ms" in told.json()["detail"]
    assert (ask(empty.app, "/readyz").status_code, ask(empty.app, "/healthz").status_code) == (503, 200)
    assert ask(empty.app, "/status").json()["is_ready"] is False
    empty.put(trained())
    assert ask(empty.app, "/readyz").json()["status"] == "ready"
    assert ask(empty.app, "/status").json()["is_ready"] is True


def test_without_a_model_of_tpot_it_is_null_and_the_status_says_so() -> None:
    served = Served({"ttft_ms": trained()["ttft_ms"]})
    assert ask(served.app, "/predict", llm_d_rows(1)[0]).json()["tpot_ms"] is None
    assert ask(served.app, "/status").json()["models_exist"] == {"ttft_model": True, "tpot_model": False}


def test_a_model_without_calibration_answers_with_its_mean_and_not_with_a_p90() -> None:
    plain = {target: replace(model, heads={}) for target, model in trained().items()}
    assert ask(Served(plain).app, "/predict", llm_d_rows(1)[0]).status_code == 200
    high = Served(plain, Objective("quantile", 0.9))
    assert ask(high.app, "/predict", llm_d_rows(1)[0]).status_code == 503
    assert ask(high.app, "/readyz").status_code == 503
    high.put({"ttft_ms": trained()["ttft_ms"], "tpot_ms": plain["tpot_ms"]})
    told = ask(high.app, "/predict", llm_d_rows(1)[0]).json()
    assert told["ttft_ms"] > 0
    assert told["tpot_ms"] is None


def test_the_status_says_what_is_not_looked_at() -> None:
    told = ask(SERVED["p99"].app, "/status").json()
    assert (told["objective_type"], told["quantile"], told["ensemble_active"]) == ("quantile", 0.99, False)
    assert {"encoder_input_size", "encoder_matched_size", "pod_type"} <= set(told["unused_fields"])
    assert "inflight_requests" in told["unfilled_features"]
    assert "prefill_tokens" not in told["unfilled_features"]


def test_a_quantile_that_is_not_calibrated_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match=r"quantile 0\.95: the models are calibrated for 0\.5, 0\.9, 0\.99 only"):
        Objective("quantile", 0.95)
    with pytest.raises(ConfigError, match="objective type 'median' is not known"):
        Objective("median")


def test_a_reload_that_fails_says_why_and_leaves_the_old_model() -> None:
    served = Served()
    assert ask(served.app, "/reload", b"").json()["loaded"] is True
    served.failed_reload = "manifest.json is missing"
    told = ask(served.app, "/reload", b"").json()
    assert (told["loaded"], told["is_ready"], told["detail"]) == (False, True, "manifest.json is missing")


def test_text_that_is_a_number_counts_as_one_as_it_does_there() -> None:
    row = llm_d_rows(1)[0]
    as_text = {key: str(value) for key, value in row.items()}
    app = SERVED["mean"].app
    assert both_ms(ask(app, "/predict", as_text).json()) == both_ms(ask(app, "/predict", row).json())
    assert ask(app, "/predict", json.dumps(row | {"num_request_waiting": 1.5}).encode()).status_code == 422
