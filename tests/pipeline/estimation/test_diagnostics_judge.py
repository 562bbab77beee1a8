"""The verdict as a table of its inputs, each limit from both sides."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lodestar.pipeline.estimation.diagnostics import mean_zero
from lodestar.pipeline.estimation.diagnostics.mean_zero import Family
from lodestar.pipeline.estimation.diagnostics.support import Support
from lodestar.pipeline.estimation.diagnostics.verdict import Verdict, judge
from lodestar.pipeline.estimation.diagnostics.weights import Weights

GOOD = Weights(10_000, 5000.0, {"p90": 500.0, "p99": 50.0}, 1.0, 1.0, 0.0, True, 10.0, 0.001, 0.05)
ALL, CHOICES = Support(0.0, 0, 0.0), Support(None, None, None)
WRONG, OR_RARE = "the logged propensities are not those that chose", "or the log hardly ever goes where"


def family(p: float, z: float, signed: bool = True) -> Family:
    return Family("weight by load", (mean_zero.Tested("load 2", 500, 0.1 if z > 0 else -0.1, z, p),), (), signed)


@pytest.mark.parametrize(
    ("weights", "support", "families", "word", "says"),
    [
        (GOOD, ALL, [], "usable", "weigh like 5,000 of 10,000 (ESS 50 %)"),
        (replace(GOOD, z=2.9), ALL, [], "usable", ""),
        (replace(GOOD, z=3.1), ALL, [], "not usable", WRONG),
        (replace(GOOD, z=-3.1), ALL, [], "not usable", WRONG),
        (replace(GOOD, z=3.1), CHOICES, [], "not usable", WRONG),
        (replace(GOOD, z=-3.1), CHOICES, [], "not usable", OR_RARE),
        (replace(GOOD, z=9.0, tested=False), ALL, [], "usable", ""),
        (GOOD, ALL, [family(0.006, 4.0)], "usable", ""),
        (GOOD, ALL, [family(0.004, 4.0)], "not usable", "weight by load is off by +10 % at load 2, 4.0 standard"),
        (GOOD, CHOICES, [family(0.004, 4.0)], "not usable", WRONG),
        (GOOD, CHOICES, [family(0.004, -4.0)], "not usable", OR_RARE),
        (GOOD, CHOICES, [family(0.004, 4.0, signed=False)], "not usable", OR_RARE),
        (GOOD, ALL, [family(0.004, 4.0, signed=False)], "not usable", "off by +0.10 at load 2"),
        (GOOD, ALL, [family(0.004, -4.0)], "not usable", WRONG),
        (replace(GOOD, ess=100.0), ALL, [], "usable", ""),
        (replace(GOOD, ess=99.0), ALL, [], "direct only", "weigh like 99 of 10,000"),
        (replace(GOOD, largest_ratio=0.05), ALL, [], "usable", ""),
        (replace(GOOD, largest_ratio=0.06), ALL, [], "weak", "one request carries 6.0 % of all weight"),
        (replace(GOOD, top_ratio=0.5), ALL, [], "usable", ""),
        (replace(GOOD, top_ratio=0.6), ALL, [], "weak", "1 % of the requests carry 60 % of all weight"),
        (GOOD, Support(0.01, 9, 0.01), [], "usable", ""),
        (GOOD, Support(0.02, 9, 0.0), [], "weak", "the log never makes 2.0 %"),
        (GOOD, Support(0.0, 0, 0.02), [], "weak", "the log hardly ever makes 2.0 %"),
        (GOOD, Support(0.1, 9, 0.0), [], "weak", "the log never makes 10.0 %"),
        (GOOD, Support(0.11, 9, 0.0), [], "direct only", "the log never makes 11.0 %"),
    ],
)
def test_the_word_follows_from_what_is_worst(
    weights: Weights, support: Support, families: list[Family], word: str, says: str
) -> None:
    found = judge(weights, support, families, has_model=True)
    assert (found.word, says in found.sentence) == (word, True), found.sentence
    without = judge(weights, support, families, has_model=False)
    assert without.word == ("not usable" if word == "direct only" else word)
    assert ("hardly ever goes" in found.sentence) == (says == OR_RARE)


def test_tails_of_fewer_than_30_are_named_where_weights_are_read() -> None:
    few = replace(GOOD, tail_ess={"p90": 30.0, "p99": 29.0})
    found = judge(few, ALL, [], has_model=True)
    assert (found.no_tails, found.sentence.endswith("too few beyond P99 (like 29)")) == (("p99",), True)
    assert "too few beyond" not in judge(replace(few, ess=99.0), ALL, [], has_model=True).sentence
    assert judge(GOOD, ALL, [], has_model=True).no_tails == ()


def test_only_usable_and_weak_let_numbers_with_weights_be_read() -> None:
    words = {word: Verdict(word, "", ()).carries_weights for word in ("usable", "weak", "direct only", "not usable")}
    assert words == {"usable": True, "weak": True, "direct only": False, "not usable": False}
