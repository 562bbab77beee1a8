from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import ttest_1samp

from lodestar.data.errors import ConfigError, DataError
from lodestar.pipeline.estimation.blocks import block_se
from lodestar.pipeline.estimation.intervals.block_bootstrap import simultaneous_intervals
from lodestar.pipeline.estimation.intervals.simultaneous import compared, holm
from lodestar.pipeline.estimation.one_step import Valued

Floats = NDArray[np.float64]

BLOCK = 40  # decisions that share their noise


def policies(random: np.random.Generator, means: list[float], n: int = 1000) -> dict[str, Valued]:
    """Values that share most of their noise, as policies on one log do, in blocks of decisions."""
    shared = np.repeat(random.normal(0, 5, n // BLOCK), BLOCK)
    found = {}
    for k, mean in enumerate(means):
        rows = mean + shared + np.repeat(random.normal(0, 1, n // BLOCK), BLOCK) + random.normal(0, 1, n)
        found[f"p{k}"] = Valued(float(rows.mean()), rows)
    return found


def test_differences_hold_together() -> None:
    random, held, one_by_one = np.random.default_rng(3), 0, 0
    for seed in range(200):
        rows = compared(policies(random, [10.0, 10.0, 11.0, 9.0, 10.5]), "p0", BLOCK, draws=300, seed=seed)
        truths = [0.0, 0.0, 1.0, -1.0, 0.5]
        held += all(row.lower <= truth <= row.upper for row, truth in zip(rows, truths, strict=True))
        one_by_one += all(abs(row.difference - t) <= 2.06 * row.se for row, t in zip(rows, truths, strict=True))
    assert 0.91 * 200 <= held <= 0.99 * 200
    assert one_by_one < 0.91 * 200


def test_what_policies_share_cancels() -> None:
    values = policies(np.random.default_rng(1), [10.0, 12.0])
    row = compared(values, "p0", BLOCK)[1]
    alone = block_se(values["p1"].influence, BLOCK)
    assert row.se == pytest.approx(block_se(values["p1"].influence - values["p0"].influence, BLOCK))
    assert row.se < 0.5 * alone
    assert row.upper - row.lower < alone * 4


def test_the_best_comes_first_and_the_baseline_is_no_different_from_itself() -> None:
    rows = {row.policy: row for row in compared(policies(np.random.default_rng(2), [10.0, 14.0, 6.0]), "p0")}
    assert list(rows) == ["p0", "p1", "p2"]
    assert rows["p2"].ranks[0] > 0.99
    assert rows["p1"].ranks[2] > 0.99
    base = rows["p0"]
    assert (base.difference, base.lower, base.upper, base.p_holm) == (0.0, 0.0, 0.0, None)
    assert rows["p1"].p_holm is not None
    assert rows["p1"].p_holm < 1e-6
    assert base.estimand == "one-step, logged states: value over traffic like the logged one, less that of p0"
    assert compared(policies(np.random.default_rng(2), [1.0, 2.0]), "p1", block=1)[0].estimand.startswith(
        "one-step, logged states: value along"
    )


def test_holm_by_hand() -> None:
    assert holm(np.array([0.005, 0.5, 0.02, 0.03])) == pytest.approx([0.02, 0.5, 0.06, 0.06])
    assert holm(np.array([0.9, 0.8])) == [1.0, 1.0]


def test_holm_errs_no_more_often_than_it_says() -> None:
    random, wrong = np.random.default_rng(7), 0
    for seed in range(200):
        rows = compared(policies(random, [10.0] * 5), "p0", BLOCK, draws=50, seed=seed)
        wrong += any(row.p_holm is not None and row.p_holm < 0.05 for row in rows)
    assert wrong <= 0.09 * 200


@pytest.mark.parametrize("means", [(10.0, 11.0), (11.0, 10.0)], ids=["worse", "better"])
def test_of_one_policy_the_p_is_that_of_the_paired_t_test_of_blocks(means: tuple[float, float]) -> None:
    values = policies(np.random.default_rng(4), list(means))
    apart = (values["p1"].influence - values["p0"].influence).reshape(-1, BLOCK).mean(axis=1)
    expected = ttest_1samp(apart, 0.0).pvalue
    assert expected < 0.5
    assert compared(values, "p0", BLOCK)[1].p_holm == pytest.approx(expected)


def test_a_short_last_block_counts_by_its_length() -> None:
    """Bounds are those of blocks drawn and averaged one by one, though blocks of 100 and of 10 are drawn alike."""
    rows = np.concatenate([np.random.default_rng(5).normal(0, 1, 400), np.random.default_rng(6).normal(6, 1, 10)])
    found = compared({"base": Valued(0.0, np.zeros(410)), "p": Valued(float(rows.mean()), rows)}, "base", 100, 4000)[1]
    random, blocks = np.random.default_rng(7), np.split(rows, [100, 200, 300, 400])
    drawn = [np.concatenate([blocks[k] for k in random.integers(0, 5, 5)]).mean() for _ in range(4000)]
    (expected,) = simultaneous_intervals(np.array([rows.mean()]), np.array([drawn]), 5)
    assert (found.lower, found.upper) == pytest.approx(expected, rel=0.1)


def test_another_seed_draws_other_blocks() -> None:
    values = policies(np.random.default_rng(1), [10.0, 12.0])
    first, again, other = (compared(values, "p0", BLOCK, draws=100, seed=seed)[1] for seed in (1, 1, 2))
    assert first == again
    assert (first.lower, first.difference) != (other.lower, other.difference)


def test_two_policies_that_are_one_do_not_differ() -> None:
    values = policies(np.random.default_rng(1), [10.0])
    row = compared({"a": values["p0"], "b": values["p0"]}, "a")[1]
    assert (row.difference, row.lower, row.upper, row.p_holm, row.ranks) == (0.0, 0.0, 0.0, 1.0, (0.5, 0.5))


def test_what_cannot_be_compared_is_refused() -> None:
    values = policies(np.random.default_rng(1), [10.0, 12.0])
    with pytest.raises(ConfigError, match="baseline p7"):
        compared(values, "p7")
    with pytest.raises(DataError, match=r"\[10, 1000\] decisions"):
        compared({**values, "short": Valued(1.0, np.ones(10))}, "p0")
