"""Which model a word means, and which rows are new to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lodestar.data.errors import ConfigError, DataError
from lodestar.data.workspace import Workspace
from lodestar.models.dataset import TrainingData
from lodestar.models.evaluation.subject import Recipe, Subject, find_subject
from lodestar.models.evaluation.unseen import judged, training_rows
from lodestar.models.fit import fit
from lodestar.models.parameters import Parameters
from lodestar.models.registry.current import Trained, save_version
from lodestar.models.registry.record import record_of
from lodestar.models.rows import Rows

MakeRows = Callable[..., Rows]
SMALL = Parameters(rounds=5, min_data_in_leaf=20)
CUT = 200


def trained_on(data: TrainingData, target: str = "ttft_ms", parameters: Parameters = SMALL) -> Trained:
    """Fit to all rows, with a twin fitted without requests from 200 on."""
    rows = data.rows[target]
    twin, _ = fit(rows.split(CUT)[0], target, parameters, 0)
    model, _ = fit(rows, target, parameters, 0)
    return Trained(model, twin, record_of(data, rows, CUT, parameters, 0, {}))


def subject_of(data: TrainingData, name: str = "made", twin: bool = True) -> Subject:
    trained = trained_on(data)
    recipe = Recipe(trained.model, trained.held_out if twin else None, trained.record)
    return Subject(name, data.dataset, {"ttft_ms": recipe})


@pytest.fixture(scope="module")
def data(make_rows: MakeRows) -> TrainingData:
    ids = [str(i) for i in range(300)]
    return TrainingData("made", "f" * 64, ids, {"ttft_ms": make_rows(300)}, {}, {})


@pytest.fixture(scope="module")
def subject(data: TrainingData) -> Subject:
    return subject_of(data)


def longer(data: TrainingData, make_rows: MakeRows, n: int) -> TrainingData:
    return replace(data, request_ids=[str(i) for i in range(n)], rows={"ttft_ms": make_rows(n)})


def test_on_its_own_rows_the_twin_stands_in_for_a_model(data: TrainingData, subject: Subject) -> None:
    (found,), rows = judged([subject], "ttft_ms", data)
    assert found.is_twin
    assert found.model is subject.recipes["ttft_ms"].twin
    assert rows.request_index.tolist() == list(range(CUT, 300))
    learned = training_rows(found, data)
    assert learned is not None
    assert learned.finished_at_s.max() <= rows.arrived_at_s[0]


def test_on_newer_rows_the_model_itself_is_judged(data: TrainingData, subject: Subject, make_rows: MakeRows) -> None:
    (found,), rows = judged([subject], "ttft_ms", longer(data, make_rows, 400))
    assert not found.is_twin
    assert rows.request_index.tolist() == list(range(300, 400))
    learned = training_rows(found, longer(data, make_rows, 400))
    assert learned is not None
    assert len(learned) == 300


def test_a_few_newer_rows_are_too_few_and_the_twin_takes_them_too(
    data: TrainingData, subject: Subject, make_rows: MakeRows
) -> None:
    (found,), rows = judged([subject], "ttft_ms", longer(data, make_rows, 310))
    assert found.is_twin
    assert rows.request_index.tolist() == list(range(CUT, 310))


def test_all_rows_of_another_dataset_are_new(data: TrainingData, subject: Subject) -> None:
    other = replace(data, dataset="other", request_ids=["x"] * 300)
    (found,), rows = judged([subject], "ttft_ms", other)
    assert not found.is_twin
    assert len(rows) == 300
    assert training_rows(found, data) is not None
    assert training_rows(found, None) is None
    assert training_rows(found, replace(data, request_ids=["x"] * 300)) is None


def test_the_newest_share_is_of_the_requests_and_never_reaches_what_was_seen(
    data: TrainingData, subject: Subject
) -> None:
    assert judged([subject], "ttft_ms", data, 0.2)[1].request_index[0] == 240
    assert judged([subject], "ttft_ms", data, 1.0)[1].request_index[0] == CUT
    with pytest.raises(DataError, match="15 of 15 complete rows of 'made' are new to 'made'"):
        judged([subject], "ttft_ms", data, 0.05)


def test_two_models_meet_on_rows_that_are_new_to_both(
    data: TrainingData, subject: Subject, make_rows: MakeRows
) -> None:
    more = longer(data, make_rows, 400)
    newer = subject_of(more, "newer")
    found, rows = judged([subject, newer], "ttft_ms", more)
    assert [each.is_twin for each in found] == [True, True]
    assert rows.request_index.tolist() == list(range(CUT, 400))
    artifact = subject_of(data, "artifact", twin=False)
    found, rows = judged([artifact, newer], "ttft_ms", more)
    assert [each.is_twin for each in found] == [False, True]
    assert rows.request_index.tolist() == list(range(300, 400))


def test_an_artifact_has_no_twin_and_needs_newer_rows(data: TrainingData) -> None:
    with pytest.raises(DataError, match="0 of 300 complete rows of 'made' are new to 'artifact'"):
        judged([subject_of(data, "artifact", twin=False)], "ttft_ms", data)


def test_rows_that_were_cut_off_are_not_enough(data: TrainingData, subject: Subject) -> None:
    rows = replace(data.rows["ttft_ms"], censored=np.arange(300) >= CUT + 20)
    with pytest.raises(DataError, match="20 of 220 complete rows"):
        judged([subject], "ttft_ms", replace(data, rows={"ttft_ms": rows}))


def test_a_changed_history_is_an_error_not_a_guess(data: TrainingData, subject: Subject) -> None:
    changed = replace(data, request_ids=["other", *data.request_ids[1:]])
    with pytest.raises(DataError, match="no longer begins with the 300 requests"):
        judged([subject], "ttft_ms", changed)


def test_the_twin_shows_what_was_not_known_before(data: TrainingData, make_rows: MakeRows) -> None:
    """A model that learned a slower second half is no better than its twin on it: nothing of it leaks."""
    rows = make_rows(300)
    rows.latency_ms[CUT:] *= 3.0
    slowed = replace(data, rows={"ttft_ms": rows})
    (found,), new = judged([subject_of(slowed)], "ttft_ms", slowed)
    assert found.model.predict(new.features).mean() < 0.5 * new.latency_ms.mean()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace.open(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def versions(home: Workspace, data: TrainingData) -> list[str]:
    """A champion and a challenger of 'made'."""
    champion, challenger = trained_on(data), trained_on(data, parameters=replace(SMALL, rounds=7))
    first = save_version(home, "made", {"ttft_ms": champion}, champions=["ttft_ms"])
    second = save_version(home, "made", {"ttft_ms": challenger})
    return [first, second]


def test_a_word_means_one_model(home: Workspace, versions: list[str]) -> None:
    trees = {
        word: find_subject(home, word).recipes["ttft_ms"].model.trees
        for word in ("made", "made@champion", "made@challenger", *(f"made@{version}" for version in versions))
    }
    assert list(trees.values()) == [5, 5, 7, 5, 7]


@pytest.mark.parametrize("word", ["maed", "made@nothing", "/nowhere", "maed@champion"])
def test_an_unknown_model_is_named_with_what_was_expected(home: Workspace, versions: list[str], word: str) -> None:
    with pytest.raises(ConfigError, match="not known"):
        find_subject(home, word)


def test_nothing_trained_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing is trained.*Run: lodestar train made"):
        find_subject(Workspace.open(tmp_path), "made")
