"""The process that learns: frames, pools, refits, and what is handed over again when it ends."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lodestar.models.online.finished import Finished
from lodestar.pipeline.serve.frames import FORGET, ROWS, SERVES, frame, read_frame, rows_frame, rows_of, serves_frame
from lodestar.pipeline.serve.learning import KEPT, Learning
from lodestar.pipeline.serve.refits import newest_refit
from lodestar.pipeline.serve.reload import read_artifact
from lodestar.pipeline.serve.trainer import ARTIFACT, Trainer
from serving import law_rows

SETTINGS = {"first_fit_requests": 200, "refit_requests": 1_000_000, "drift": False}


def job(incumbent: Any = None) -> dict[str, Any]:
    policy = {"name": "lodestar-online", "settings": SETTINGS}
    return {"seed": 0, "refit_s": 30.0, "kinds": [], "policy": policy, "incumbent": incumbent}


def incumbent_of(artifact: Path) -> dict[str, Any]:
    loaded = read_artifact(str(artifact))
    return {"values": dict(loaded.values), "texts": loaded.texts}


def unpredicted(rows: Finished) -> bytes:
    return rows_frame(rows, np.full(len(rows), np.nan))[9:]


def test_rows_come_through_a_frame_as_they_are() -> None:
    rows, predicted_ms = law_rows(30), np.arange(30.0)
    file = io.BytesIO(frame(FORGET) + rows_frame(rows, predicted_ms))
    assert read_frame(file) == (FORGET, b"")
    found = read_frame(file)
    assert found is not None
    again, told_ms = rows_of(found[1])
    assert found[0] == ROWS
    np.testing.assert_array_equal(told_ms, predicted_ms)
    for name in ("features", "kind", "ttft_ms", "censored", "finished_at_s"):
        np.testing.assert_array_equal(getattr(again, name), getattr(rows, name))
    assert read_frame(file) is None
    empty = rows_of(rows_frame(Finished.empty(), np.empty(0))[9:])[0]
    assert len(empty) == 0


def test_a_first_model_is_trained_when_there_are_rows_enough(tmp_path: Path) -> None:
    frames = serves_frame(job()) + frame(ROWS, unpredicted(law_rows(100))) + frame(ROWS, unpredicted(law_rows(150, 1)))
    answers = io.StringIO()
    Trainer(tmp_path).answer(io.BytesIO(frames), answers)
    first, second, third = map(json.loads, answers.getvalue().splitlines())
    assert (first["rows"], second) == (0, {"rows": 100})
    assert third["why"] == "250 requests have finished"
    loaded = read_artifact(str(Path(third["directory"]) / ARTIFACT))
    assert loaded.settings.first_fit_requests == 200
    assert loaded.trained_at_s == pytest.approx(law_rows(150, 1).finished_at_s.max())


def test_what_serves_stays_unless_something_predicts_better(tmp_path: Path, artifact: Path) -> None:
    """On the law that the artifact was trained on, a few rows are no match for it; on one twice as slow, they are."""
    for slower, outcome in ((1.0, "kept"), (2.0, "directory")):
        trainer = Trainer(tmp_path)
        trainer.take(SERVES, serves_frame(job(incumbent_of(artifact)))[9:], 0.0)
        answer = trainer.take(ROWS, unpredicted(law_rows(250, 5, slower)), 1.0)
        assert outcome in answer, answer
    assert trainer.take(FORGET, b"", 2.0) == {"rows": 0}


def test_too_few_rows_give_no_model_and_say_so(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path)
    trainer.take(SERVES, serves_frame(job())[9:], 0.0)
    rows = law_rows(250)
    unknown = Finished(
        rows.features, rows.kind, np.full(250, np.nan), rows.tpot_ms, rows.censored, rows.decided_at_s,
        rows.finished_at_s,
    )  # fmt: skip
    assert "too few" in trainer.take(ROWS, unpredicted(unknown), 1.0)["failed"]


def test_a_server_without_an_artifact_goes_on_from_the_newest_refit(tmp_path: Path) -> None:
    assert newest_refit(tmp_path / "none") is None
    for at_s in ("9.500", "10.250", "1.000"):
        (tmp_path / f"refit-{at_s}" / ARTIFACT).mkdir(parents=True)
    (tmp_path / "refit-11.000").mkdir()  # of which nothing came
    assert newest_refit(tmp_path) == tmp_path / "refit-10.250" / ARTIFACT


def test_the_newest_rows_are_handed_over_again() -> None:
    learning = Learning()
    for k in range(10):
        rows = law_rows(1000, k)
        learning.add(rows)
        assert len(learning.take()[0]) == 1000
    learning.add(law_rows(50, 99), np.ones(50))
    learning.again()
    rows, predicted_ms = learning.take()
    assert len(rows) == KEPT + 50
    np.testing.assert_array_equal(rows.ttft_ms[-50:], law_rows(50, 99).ttft_ms)
    assert np.isnan(predicted_ms[:-50]).all()
    assert (predicted_ms[-50:] == 1).all()
    learning.forget()
    learning.again()
    assert len(learning.take()[0]) == 0
    assert learning.forgotten
