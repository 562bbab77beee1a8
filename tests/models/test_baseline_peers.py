"""The benchmark's peer is llm-d's predictor: its columns, by name and by value."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench.predictor_peers import TPOT_COLUMNS, TTFT_COLUMNS, XGBOOST_MISSING, columns, llm_d
from lodestar.features.definitions import FEATURE_NAMES


def row(**known: float) -> np.ndarray:
    features = np.full((1, len(FEATURE_NAMES)), np.nan)
    for name, value in known.items():
        features[0, FEATURE_NAMES.index(name)] = value
    return features


def test_the_columns_are_those_of_its_golden_file(traces: Path) -> None:
    golden = json.loads((traces / "llm-d-predictor" / "golden_columns.json").read_text(encoding="utf-8"))
    assert (list(TTFT_COLUMNS), list(TPOT_COLUMNS)) == (golden["ttft"], golden["tpot"])


def test_the_columns_follow_from_our_features() -> None:
    made = columns(row(prompt_tokens=800.0, hit_ratio=0.8, waiting_requests=2.0, running_requests=5.0))
    assert dict(zip(TTFT_COLUMNS, made[0], strict=True)) == pytest.approx(
        {
            "is_queued": 1.0, "kv_cache_percentage": 0.0, "input_token_length": 800.0, "num_request_waiting": 2.0,
            "num_request_running": 5.0, "prefill_tokens_in_flight": 0.0, "decode_tokens_in_flight": 0.0,
            "encoder_matched_size": 0.0, "encoder_input_size": 0.0, "prefix_cache_score": 0.8,
            "effective_input_tokens": 160.0, "prefill_score_bucket": 3.0, "pod_type_cat": 0.0,
        }
    )  # fmt: skip


@pytest.mark.parametrize(("hit", "bucket"), [(0.0, 0.0), (0.24, 0.0), (0.25, 1.0), (0.99, 3.0), (1.0, 3.0)])
def test_the_bucket_is_the_quarter_of_the_prefix_score(hit: float, bucket: float) -> None:
    assert columns(row(prompt_tokens=1.0, hit_ratio=hit), ("prefill_score_bucket",))[0, 0] == bucket


@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
def test_its_mean_and_its_quantile_are_learned_and_the_gate_parts_the_rows(library: str) -> None:
    if library == "xgboost" and XGBOOST_MISSING:
        pytest.skip(XGBOOST_MISSING)
    rng = np.random.default_rng(0)
    features = np.zeros((1200, len(FEATURE_NAMES)))
    features[:, FEATURE_NAMES.index("waiting_requests")] = rng.integers(0, 4, 1200)
    law_ms = 100.0 + 50.0 * features[:, FEATURE_NAMES.index("waiting_requests")]
    latency_ms = law_ms * rng.uniform(0.8, 1.2, 1200)
    for gated in (False, True):
        assert np.abs(llm_d(library, "mean", features, latency_ms, 0, gated)(features) - law_ms).mean() < 5.0
        p90_ms = llm_d(library, "quantile", features, latency_ms, 0, gated)(features)
        assert (latency_ms <= p90_ms).mean() == pytest.approx(0.9, abs=0.03)
