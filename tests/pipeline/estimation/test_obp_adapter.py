from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lodestar.data.errors import DataError
from lodestar.pipeline.estimation.estimators import estimators
from lodestar.pipeline.estimation.obp import of_obp, to_obp
from one_step_world import changed, three_decisions, world


def test_dense_arrays_by_hand() -> None:
    rows = three_decisions()
    feedback, action_dist, estimated = to_obp(rows)
    assert estimated is not None
    assert (feedback["n_rounds"], feedback["n_actions"], feedback["position"]) == (3, 2, None)
    assert feedback["action"].tolist() == [0, 1, 0]
    assert feedback["reward"].tolist() == [-100.0, -300.0, -200.0]
    assert feedback["pscore"].tolist() == [0.5, 0.25, 1.0]
    assert feedback["pi_b"][:, :, 0].tolist() == [[0.5, 0.5], [0.75, 0.25], [1.0, 0.0]]
    assert feedback["context"].tolist() == [[0.0, 1.0], [0.0, 1.0], [0.0, 0.0]]
    assert action_dist[:, :, 0].tolist() == [[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]]
    assert estimated[:, :, 0].tolist() == [[-110.0, -210.0], [-120.0, -280.0], [-190.0, 0.0]]


def test_costs_may_stay_costs() -> None:
    feedback, _, estimated = to_obp(three_decisions(), negate=False)
    assert estimated is not None
    assert feedback["reward"].tolist() == [100.0, 300.0, 200.0]
    assert estimated[0, 0, 0] == 110.0


def test_what_obp_would_multiply_by_zero_is_no_nan_there_and_what_is_needed_stays_one() -> None:
    rows = three_decisions()
    _, _, estimated = to_obp(replace(rows, predicted=np.array([110.0, np.nan, 120.0, 280.0, 190.0])))
    assert estimated is not None
    assert estimated[0, :, 0].tolist() == [-110.0, 0.0]
    _, _, needed = to_obp(replace(rows, predicted=np.array([110.0, 210.0, np.nan, 280.0, 190.0])))
    assert needed is not None
    assert np.isnan(needed[1, 0, 0])
    chosen_alone = replace(rows, target=np.array([1.0, 0.0, 1.0, 0.0, 1.0]))
    _, _, needed = to_obp(replace(chosen_alone, predicted=np.array([110.0, 210.0, 120.0, np.nan, 190.0])))
    assert needed is not None
    assert np.isnan(needed[1, 1, 0])


def test_without_model_features_and_logging_probabilities_there_are_none() -> None:
    rows = changed(replace(three_decisions(), predicted=None, features=None), logging=None)
    feedback, _, estimated = to_obp(rows)
    assert estimated is None
    assert feedback["pi_b"] is None
    assert feedback["context"].tolist() == [[0.0], [0.0], [0.0]]


@pytest.mark.parametrize("negate", [True, False])
def test_there_and_back_every_estimator_says_the_same(negate: bool) -> None:
    for rows in (three_decisions(), world(0, n=100)[0]):
        rows = changed(rows, logger=np.arange(rows.log.decisions) % 2)
        feedback, action_dist, estimated = to_obp(rows, negate)
        back = of_obp(feedback, action_dist, estimated, negate)
        assert back.log.logger is not None
        assert back.log.logger.tolist() == (np.arange(rows.log.decisions) % 2).tolist()
        for name, estimator in estimators().items():
            if name in {"mrdr", "mipw"}:  # features and embeddings do not come back
                continue
            found, expected = estimator(back), estimator(rows)
            assert found.value == pytest.approx(expected.value), name
            assert found.influence == pytest.approx(expected.influence), name


def test_arrays_that_do_not_fit_are_named() -> None:
    feedback, action_dist, _ = to_obp(three_decisions())
    with pytest.raises(DataError, match=r"action_dist has shape \(3, 2\); expected \(rounds, actions, 1\)"):
        of_obp(feedback, action_dist[:, :, 0])
    with pytest.raises(DataError, match="bandit_feedback has no pscore"):
        of_obp({**feedback, "pscore": None}, action_dist)
