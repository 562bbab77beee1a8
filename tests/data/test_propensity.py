from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from lodestar.data.log import RequestLog
from lodestar.data.reconstruction.propensity import propensity_of, uniform_test


@pytest.mark.parametrize("name", ["sharing09-random", "sharing47-random"])
def test_uniform_choices_are_accepted_and_said_to_be_inferred(name: str, real_log: Callable[[str], RequestLog]) -> None:
    propensity, note = propensity_of(real_log(name))
    assert set(propensity.tolist()) == {1 / 7}
    assert note is not None
    assert note.startswith("inferred as 1 / candidates: the choices look uniform at random (likelihood ratio")


@pytest.mark.parametrize("name", ["sharing09-prefix", "sharing09-rl", "sharing47-prefix", "sharing47-rl", "klog-rl"])
def test_choices_of_a_policy_are_rejected(name: str, real_log: Callable[[str], RequestLog]) -> None:
    propensity, note = propensity_of(real_log(name))
    assert np.isnan(propensity).all()
    assert note is not None
    assert "not uniform at random" in note
    assert "p = 0," not in note


def test_a_decision_without_candidates_has_no_propensity(made_log: Callable[..., RequestLog]) -> None:
    log = made_log(n=700)
    candidate = log.candidate.copy()
    candidate[:3] = False
    propensity, note = propensity_of(dataclasses.replace(log, propensity=np.full(700, np.nan), candidate=candidate))
    assert np.isnan(propensity[:3]).all()
    assert (propensity[3:] == 1 / 3).all()
    assert note is not None
    assert note.endswith("; 3 decisions without candidates have none")


def test_many_instances_are_judged_by_evenly_spaced_requests(made_log: Callable[..., RequestLog]) -> None:
    log = dataclasses.replace(made_log(n=12_000, m=40), propensity=np.full(12_000, np.nan))
    assert uniform_test(log, np.arange(12_000)).requests == 5000
    _, note = propensity_of(log)
    assert note is not None
    assert "5000 of 12000 requests tested" in note


def test_logged_propensities_are_used_as_they_are(made_log: Callable[..., RequestLog]) -> None:
    log = made_log()
    propensity, note = propensity_of(log)
    assert propensity is log.propensity
    assert note is None


def test_a_few_logged_as_one_of_the_candidates_tell_no_less_than_none(made_log: Callable[..., RequestLog]) -> None:
    log = made_log(n=700)
    few = np.where(np.arange(700) < 40, 1 / 3, np.nan)
    propensity, note = propensity_of(dataclasses.replace(log, propensity=few))
    assert (propensity == 1 / 3).all()
    assert note is not None
    assert note.startswith(
        "logged as 1 / candidates for 40 of 700 decisions, and inferred as 1 / candidates: the choices"
    )


def test_a_few_logged_otherwise_are_told_alone(made_log: Callable[..., RequestLog]) -> None:
    log = made_log(n=700)
    few = np.where(np.arange(700) < 40, 0.9, np.nan)
    propensity, note = propensity_of(dataclasses.replace(log, propensity=few))
    assert np.array_equal(propensity, few, equal_nan=True)
    assert note == "propensities are logged for some decisions only"


def test_too_few_decisions_are_not_judged(made_log: Callable[..., RequestLog]) -> None:
    log = dataclasses.replace(made_log(n=100), propensity=np.full(100, np.nan))
    propensity, note = propensity_of(log)
    assert np.isnan(propensity).all()
    assert note is not None
    assert "100 decisions are too few to test" in note


def test_a_log_without_decisions_says_so(real_log: Callable[[str], RequestLog]) -> None:
    assert propensity_of(real_log("azure"))[1] == "no decisions are logged"


def test_the_test_is_level_under_uniform_choices(made_log: Callable[..., RequestLog]) -> None:
    p_values = []
    for seed in range(60):
        log = made_log(n=600, seed=seed)
        p_values.append(uniform_test(log, np.arange(600)).p_value)
    assert 0.3 < np.mean(p_values) < 0.7
    assert np.mean(np.array(p_values) < 0.05) < 0.15


def test_a_preference_for_one_instance_is_seen(made_log: Callable[..., RequestLog]) -> None:
    log = made_log(n=1000)
    chosen = np.where(np.arange(1000) % 5 == 0, 0, log.chosen)
    assert uniform_test(dataclasses.replace(log, chosen=chosen), np.arange(1000)).p_value < 0.01
