"""A log of decisions, cut to some of them, and into blocks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lodestar.data.errors import DataError
from lodestar.pipeline.estimation.blocks import block_of, blocks_in
from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.one_step import OneStepInput
from lodestar.pipeline.estimation.shared_prefixes import SharedPrefixes


def log_of_four() -> LoggedDecisions:
    """Decisions of 2, 1, 3 and 2 candidates, by two loggers."""
    logging = np.array([0.25, 0.75, 1.0, 0.5, 0.25, 0.25, 0.125, 0.875])
    chosen = np.array([1, 2, 5, 6])
    return LoggedDecisions(
        np.array([10.0, 20.0, 30.0, 40.0]),
        np.array([0, 2, 3, 6, 8]),
        chosen,
        logging[chosen],
        logging,
        np.array([0, 1, 0, 1]),
        SharedPrefixes(np.array([0, -1, 0, 1]), np.array([5, 6, 7, 8])),
    )


def test_a_part_of_a_log_keeps_all_that_was_known_of_its_decisions() -> None:
    part = log_of_four().only(np.array([True, False, True, True]))
    assert part.cost.tolist() == [10.0, 30.0, 40.0]
    assert part.offsets.tolist() == [0, 2, 5, 7]
    assert part.chosen.tolist() == [1, 4, 5]
    assert part.propensity.tolist() == [0.75, 0.25, 0.125]
    assert part.logging is not None
    assert part.logging.tolist() == [0.25, 0.75, 0.5, 0.25, 0.25, 0.125, 0.875]
    assert part.logger is not None
    assert part.logger.tolist() == [0, 0, 1]
    assert part.shared is not None
    assert (part.shared.group.tolist(), part.shared.prompt_tokens.tolist()) == ([0, 0, 1], [5, 7, 8])


def test_a_chosen_candidate_of_the_next_decision_or_the_last_one_is_refused() -> None:
    log = replace(log_of_four(), logging=None)
    for chosen in ([2, 2, 5, 6], [1, 1, 5, 6], [1, 3, 5, 6], [1, 2, 2, 6]):
        with pytest.raises(DataError, match="chosen must be a candidate of its own decision"):
            replace(log, chosen=np.array(chosen))


def test_a_decision_without_candidates_is_refused() -> None:
    with pytest.raises(DataError, match="grow by one or more a decision"):
        LoggedDecisions(np.ones(3), np.array([0, 2, 2, 3]), np.array([0, 2, 2]), np.ones(3))


@pytest.mark.parametrize("total", [0.9, 1.1])
def test_probabilities_that_add_up_to_more_or_less_than_1_are_refused(total: float) -> None:
    target = np.array([0.25, 0.75, 1.0, 0.5, 0.25, 0.25, 0.125, 0.875])
    target[3:6] *= total
    with pytest.raises(DataError, match=rf"target probability of one decision sums to {total}; expected 1"):
        OneStepInput(log_of_four(), target)


@pytest.mark.parametrize("decisions", [13, 23, 2399, 2405, 100_000])
def test_a_log_is_cut_into_no_more_than_12_blocks_where_nothing_else_is_asked(decisions: int) -> None:
    """A rest of five requests is no block of its own: its mean would be as sure as that of all the others."""
    assert blocks_in(decisions, block_of(decisions)) <= 12
    assert blocks_in(decisions, max(1, block_of(decisions) - 1)) > 12 or decisions == 13
