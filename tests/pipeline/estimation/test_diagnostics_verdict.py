"""The verdict: right logs are usable, and each known fault is found. Full tables: tests/bench/diagnostics.py."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from faulty_logs import FAULTS, World, world
from lodestar.pipeline.estimation.diagnostics import diagnose
from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.one_step import OneStepInput


def words(logs: int, **settings: object) -> Counter[str]:
    return Counter(world(seed, **settings).diagnosed().verdict.word for seed in range(logs))  # type: ignore[arg-type]


def reweighed(n: int, propensity: float, hits: int) -> World:
    """A log with one sure policy, which shares `hits` of n decisions with a log of two candidates."""
    chosen = 2 * np.arange(n) + (np.arange(n) % (n // hits) != 0)
    p = np.where(chosen % 2 == 0, propensity, 1 - propensity)
    logging = np.tile([propensity, 1 - propensity], n)
    log = LoggedDecisions(np.arange(float(n)), np.arange(0, 2 * n + 1, 2), chosen, p, logging)
    return World(OneStepInput(log, np.tile([1.0, 0.0], n), np.ones(2 * n)), np.tile([0, 1], n), {})


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("settings", [{}, {"sharp": 40.0}, {"n": 800}])
def test_a_right_log_is_usable(full: bool, settings: dict[str, float]) -> None:
    assert words(60, full=full, **settings)["usable"] >= 57


@pytest.mark.parametrize(
    ("fault", "full"), [*((each, False) for each in FAULTS), *((each, True) for each in FAULTS[1:])]
)
def test_a_fault_is_found(fault: str, full: bool) -> None:
    """The first is refused before where all probabilities are logged: they do not sum to 1."""
    few = fault == "one instance a fifth too high"
    found = words(5, fault=fault, full=full, n=20_000 if few else 2500)
    expected = "direct only" if full and fault == "one instance never chosen" else "not usable"
    assert found[expected] == 5


def test_where_only_choices_have_propensities_missing_support_is_named_as_a_cause() -> None:
    sentence = world(0, "one instance never chosen", full=False).diagnosed().verdict.sentence
    assert "or the log hardly ever goes where the policy would" in sentence
    sentence = world(0, "all a fifth too low", full=False).diagnosed().verdict.sentence
    assert sentence.endswith("the logged propensities are not those that chose")


def test_a_policy_that_shares_few_decisions_leaves_the_model_alone() -> None:
    few = reweighed(2000, 0.025, 50)
    assert (
        few.diagnosed().verdict.sentence
        == "direct only: the logged decisions weigh like 50 of 2,000 (ESS 2 %), expected 100 or more"
    )
    bare = replace(few.rows, predicted=None)
    assert diagnose(bare, 80).verdict.sentence.startswith("not usable: the logged decisions weigh like 50 of 2,000")
    assert diagnose(bare, 80).verdict.sentence.endswith("and there is no model")
    assert reweighed(2000, 0.05, 100).diagnosed().verdict.word == "usable"


@pytest.mark.parametrize("full", [True, False])
def test_a_right_log_that_hardly_goes_there_is_not_called_wrong(full: bool) -> None:
    found = words(20, sharp=-8.0, keen=8.0, explore=0.01, full=full)
    assert found["direct only"] == 20


def test_few_requests_with_most_of_the_weight_are_weak() -> None:
    """One in a hundred has a weight of 60, all others 0.4: 200 requests carry 60 % of it."""
    n = 20_000
    rare = np.arange(n) % 100 == 0
    p = np.where(rare, 0.01, 0.99)
    chosen = 2 * np.arange(n) + ~rare
    log = LoggedDecisions(np.ones(n), np.arange(0, 2 * n + 1, 2), chosen, p)
    rows = OneStepInput(log, np.tile([0.6, 0.4], n), np.ones(2 * n))
    verdict = diagnose(rows, n // 25).verdict
    assert verdict.word == "weak"
    assert "1 % of the requests carry 60 % of all weight" in verdict.sentence


def test_some_missing_support_is_weak_and_much_of_it_leaves_the_model_alone() -> None:
    n = 3000
    for share, word in ((0.005, "usable"), (0.05, "weak"), (0.2, "direct only")):
        logging, target = np.tile([0.5, 0.5, 0.0], n), np.tile([0.6 - share, 0.4, share], n)
        log = LoggedDecisions(
            np.arange(float(n)),
            np.arange(0, 3 * n + 1, 3),
            3 * np.arange(n) + np.arange(n) % 2,
            np.full(n, 0.5),
            logging,
        )
        found = diagnose(OneStepInput(log, target, np.ones(3 * n)), n // 25)
        assert found.verdict.word == word
        assert found.support.unsupported_ratio == pytest.approx(share)


def test_a_tail_of_few_requests_carries_no_quantile() -> None:
    found = world(0).diagnosed()
    assert found.verdict.no_tails == ("p99",)
    assert "too few beyond P99" in found.verdict.sentence
    assert found.weights.tail_ess["p90"] > 30 > found.weights.tail_ess["p99"]
    assert world(0, n=10_000).diagnosed().verdict.no_tails == ()


def test_propensities_that_are_rounded_are_no_fault() -> None:
    """At 1/3 logged as 0.333, a million decisions would find the 0.1 %, and nobody should mind."""
    n = 300_000
    chosen = 3 * np.arange(n) + np.random.default_rng(0).integers(0, 3, n)
    log = LoggedDecisions(np.ones(n), np.arange(0, 3 * n + 1, 3), chosen, np.full(n, 0.333))
    rows = OneStepInput(log, np.full(3 * n, 1 / 3))
    assert diagnose(rows, n // 25).verdict.word == "usable"
    assert diagnose(replace(rows, log=replace(log, propensity=np.full(n, 0.32))), n // 25).verdict.word == "not usable"
