"""Drift and calibration of what was served, against models whose law is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lodestar.pipeline.serve.accuracy import Accuracy
from lodestar.pipeline.serve.metrics import Metrics
from lodestar.pipeline.serve.reload import read_artifact
from serving import law_ms, law_rows


def value(metrics: Metrics, name: str) -> float:
    found = metrics.registry.get_sample_value(f"lodestar_{name}")
    assert found is not None
    return found


def test_the_share_below_p90_is_told_and_a_change_raises_an_alarm(artifact: Path) -> None:
    brain, metrics = read_artifact(str(artifact)).brain, Metrics()
    accuracy, rows = Accuracy(metrics, newest=500), law_rows(1200, 7)
    for at in range(0, 1200, 20):
        part = slice(at, at + 20)
        accuracy.judge(brain, rows.kind[part].tolist(), rows.features[part], rows.ttft_ms[part])
    assert value(metrics, "outcomes_judged") == 500
    assert value(metrics, "drift_log_residual") == pytest.approx(0.0, abs=0.03)
    assert value(metrics, "below_p90_ratio") == pytest.approx(0.9, abs=0.05)
    assert value(metrics, "drift_alarms_total") == 0
    slower = law_rows(500, 8)
    accuracy.judge(brain, slower.kind.tolist(), slower.features, 1.5 * law_ms(slower.features))
    assert value(metrics, "drift_log_residual") == pytest.approx(np.log(1.5), abs=0.05)
    assert value(metrics, "below_p90_ratio") < 0.1
    assert value(metrics, "drift_alarms_total") >= 1


def test_the_model_of_a_kind_is_judged_where_there_is_one(artifact: Path) -> None:
    brain = read_artifact(str(artifact)).brain
    metrics, rows = Metrics(), law_rows(60, 9)
    Accuracy(metrics).judge(brain, ["A30", "unseen"] * 30, rows.features, rows.ttft_ms)
    assert value(metrics, "outcomes_judged") == 60
