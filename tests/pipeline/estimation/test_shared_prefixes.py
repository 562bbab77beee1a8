from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import linregress

from lodestar.data.errors import DataError
from lodestar.data.log import RequestLog
from lodestar.data.reconstruction.reconstruct import workload_of
from lodestar.pipeline.estimation.blocks import block_se
from lodestar.pipeline.estimation.estimate import estimate
from lodestar.pipeline.estimation.intervals.linearised import linearised_interval
from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.one_step import OneStepInput, Valued
from lodestar.pipeline.estimation.shared_prefixes import SharedPrefixes
from lodestar.pipeline.replay.estimates.logged_inputs import logged_inputs
from lodestar.pipeline.validation.replayed_logs import ReplayedWorld, recorded

Floats = NDArray[np.float64]

N, SIZE, BLOCK = 2400, 10, 200


def drawn(seed: int) -> SharedPrefixes:
    """Groups of ten requests, each with one prompt length, scattered over the whole log."""
    random = np.random.default_rng(seed)
    group = random.permutation(np.arange(N) // SIZE)
    return SharedPrefixes(group, random.choice([1000, 2000, 4000, 8000], N // SIZE)[group])


def costs(shared: SharedPrefixes, seed: int) -> Floats:
    """What a request costs: 0.1 a token of its own, 0.025 a token of the four before it, and luck."""
    tokens = shared.prompt_tokens.astype(np.float64)
    queue = np.convolve(tokens, [0.0, 1.0, 1.0, 1.0, 1.0])[: len(tokens)]
    return 0.1 * tokens + 0.025 * queue + np.random.default_rng([seed, 1]).normal(0.0, 200.0, len(tokens))


def test_turns_of_a_conversation_are_a_group_whatever_all_conversations_begin_with() -> None:
    conversations = [np.array([0, *range(k, k + turn)]) for turn in (1, 2, 3) for k in range(1, 61, 3)]
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in conversations])])
    shared = SharedPrefixes.of_blocks(np.concatenate(conversations), offsets, np.full(60, 48))
    assert shared.group.tolist() == [*range(20)] * 3


def test_the_system_prompts_of_few_applications_make_no_groups_but_what_is_shared_within_them_does() -> None:
    random = np.random.default_rng(8)
    document = random.permutation(np.arange(N) % 300)
    application = document // 100
    tokens = (np.repeat([500, 2000, 8000], 100) + random.integers(0, 500, 300))[document]
    blocks = np.stack([application, 3 + document], axis=1).ravel()
    shared = SharedPrefixes.of_blocks(blocks, 2 * np.arange(N + 1), tokens)
    assert np.array_equal(shared.group, document)
    of_few = SharedPrefixes(application, tokens).between(BLOCK).added
    assert shared.between(BLOCK).added < 0.02 * of_few  # whose error would be 40 % of the mean prompt length


def test_requests_without_blocks_or_with_blocks_of_their_own_are_in_no_group() -> None:
    offsets = np.array([0, 2, 2, 3])
    assert SharedPrefixes.of_blocks(np.array([0, 1, 2]), offsets, np.full(3, 16)).group.tolist() == [-1, -1, -1]
    none = SharedPrefixes.of_blocks(np.zeros(0, dtype=np.int64), np.zeros(4, dtype=np.int64), np.full(3, 16))
    assert none.group.tolist() == [-1, -1, -1]
    assert none.spanning(np.arange(3.0), 1) == (0.0, 0.0)


def test_a_block_that_one_request_alone_has_makes_no_group_of_one() -> None:
    """Groups of one would add nothing, and much to how unsure that is."""
    ids = np.concatenate([[0, 0], np.arange(1, 39)])
    shared = SharedPrefixes.of_blocks(ids, np.arange(41), np.arange(40) % 7)
    assert shared.group.tolist() == [0, 0, *[-1] * 38]


def test_groups_whose_requests_are_unlike_take_nothing_off() -> None:
    """Long in one block and short in the other: less than blocks see, which is no negative variance."""
    shared = SharedPrefixes(np.array([0, 1, 0, 1]), np.array([8, 1, 1, 8]))
    assert shared.between(2).added == 0.0


def test_what_blocks_do_not_see_of_the_mean_prompt_length_is_known() -> None:
    found = [drawn(seed) for seed in range(200)]
    variance = np.var([each.prompt_tokens.mean() for each in found])
    seen = np.mean([block_se(each.prompt_tokens.astype(np.float64), BLOCK) ** 2 for each in found])
    assert seen < 0.15 * variance
    assert seen + np.mean([each.between(BLOCK).added for each in found]) == pytest.approx(variance, rel=0.2)


def test_groups_within_a_block_add_nothing() -> None:
    shared = drawn(0)
    local = replace(shared, group=np.arange(N) // SIZE)
    assert local.spanning(costs(shared, 0), BLOCK) == (0.0, 0.0)
    value = linearised_interval(0.0, costs(shared, 0), BLOCK)
    assert linearised_interval(0.0, costs(shared, 0), BLOCK, shared=local) == value


def test_prompts_of_one_length_add_nothing() -> None:
    shared = drawn(0)
    assert replace(shared, prompt_tokens=np.full(N, 500)).spanning(costs(shared, 0), BLOCK) == (0.0, 0.0)


def test_intervals_hold_where_groups_span_the_log_and_queues_pass_their_lengths_on() -> None:
    """Blocks alone do not, nor does the covariance of costs within groups, which is of their own lengths alone."""
    truth = (0.1 + 4 * 0.025) * 3750
    held = {"blocks": 0, "groups": 0}
    for seed in range(300):
        shared = drawn(seed)
        cost = costs(shared, seed)
        value = float(cost.mean())
        held["blocks"] += linearised_interval(value, cost, BLOCK).holds(truth)
        held["groups"] += linearised_interval(value, cost, BLOCK, shared=shared).holds(truth)
    assert held["blocks"] < 0.6 * 300
    assert 0.91 * 300 <= held["groups"] <= 0.99 * 300


def test_an_interval_says_that_it_counts_on_prefix_groups_and_is_never_narrower_for_it() -> None:
    shared = drawn(3)
    alone, known = (linearised_interval(0.0, costs(shared, 3), BLOCK, shared=each) for each in (None, shared))
    assert known.method == f"{alone.method} and prefix groups that span them"
    added, noise = shared.spanning(costs(shared, 3), BLOCK)
    assert alone.se is not None
    assert known.se == pytest.approx(np.sqrt(alone.se**2 + added))
    assert noise > 0
    assert known.width > alone.width
    assert linearised_interval(0.0, costs(shared, 3), 1, shared=shared) == linearised_interval(0.0, costs(shared, 3), 1)


def test_the_less_is_known_of_the_slope_the_wider_is_the_interval_for_its_error() -> None:
    shared = drawn(4)
    loud = costs(shared, 4) + np.random.default_rng(4).normal(0.0, 20_000.0, N)
    clear, unclear = (linearised_interval(0.0, each, BLOCK, shared=shared) for each in (costs(shared, 4), loud))
    assert clear.se is not None
    assert unclear.se is not None
    assert -unclear.lower / unclear.se > 1.02 * -clear.lower / clear.se


def test_what_groups_add_goes_by_a_regression_over_blocks_half_as_long() -> None:
    shared, cost = drawn(2), costs(drawn(2), 2)
    tokens = shared.prompt_tokens - shared.prompt_tokens.mean()
    fit = linregress(*(each.reshape(-1, BLOCK // 2).sum(axis=1) for each in (tokens, cost - cost.mean())))
    between, unsure = shared.between(BLOCK)
    added, noise = shared.spanning(cost, BLOCK)
    assert added == pytest.approx(fit.slope**2 * between)
    of_slope = 4 * fit.slope**2 * fit.stderr**2 + 2 * fit.stderr**4
    assert noise == pytest.approx(of_slope * between**2 + fit.slope**4 * unsure)


@pytest.mark.parametrize("groups", [25, 50])
def test_groups_that_come_in_turn_are_seen_though_blocks_are_alike(groups: int) -> None:
    """Over blocks of whole turns prompt lengths do not differ but by rounding, and a slope over them is anything."""
    held, blocks_alone = 0, 0
    for seed in range(100):
        lengths = np.random.default_rng(seed).choice([1000, 2000, 4000, 8000], groups)
        shared = SharedPrefixes(np.tile(np.arange(groups), N // groups), np.tile(lengths, N // groups))
        cost = costs(shared, seed)
        found = linearised_interval(float(cost.mean()), cost, BLOCK, shared=shared)
        assert found.width < 4 * 2.201 * 0.2 * 2700 / groups**0.5  # twice what the spread of the lengths makes
        held += found.holds(0.2 * 3750)
        blocks_alone += linearised_interval(float(cost.mean()), cost, BLOCK).holds(0.2 * 3750)
    assert blocks_alone < 20
    assert held >= 80


def test_however_little_is_known_the_interval_has_two_degrees_of_freedom() -> None:
    group = np.random.default_rng(6).permutation(np.arange(N) % 240)
    shared = SharedPrefixes(group, np.where(group < 2, 90_000, 1000 + group))
    noise = np.random.default_rng(8).normal(0.0, 1.0, N)
    found = linearised_interval(0.0, noise, BLOCK, shared=shared)
    assert found.se is not None
    assert min(-found.lower, found.upper) / found.se == pytest.approx(4.3027, abs=1e-4)


def test_the_fewer_groups_the_wider_is_the_interval_for_its_error() -> None:
    wide = []
    for groups in (240, 8):
        group = np.random.default_rng(6).permutation(np.arange(N) % groups)
        shared = SharedPrefixes(group, np.random.default_rng(7).normal(4000, 1000, groups).astype(np.int64)[group])
        found = linearised_interval(0.0, 0.1 * shared.prompt_tokens, BLOCK, shared=shared)
        assert found.se is not None
        wide.append(-found.lower / found.se)
    assert 2.2 < wide[0] < 2.25  # t of 12 blocks is 2.201, and their skew
    assert 2.3 < wide[1] < 4.303  # t of two degrees of freedom


def test_whole_weights_count_on_the_groups_too() -> None:
    shared = drawn(5)
    log = LoggedDecisions(costs(shared, 5), np.arange(N + 1), np.arange(N), np.ones(N), shared=shared)
    whole = Valued(100.0, costs(shared, 5) - 100.0)
    found = estimate(
        OneStepInput(log, np.ones(N)), "policy", "own", by=lambda _: Valued(100.0, np.ones(N), whole=whole)
    )
    alone = linearised_interval(100.0, whole.influence, BLOCK, shared=shared)
    assert found.ci95_ms == (alone.lower, alone.upper)


def test_an_estimate_counts_on_the_groups_of_its_log_also_where_decisions_are_left_out() -> None:
    shared = drawn(5)
    log = LoggedDecisions(costs(shared, 5), np.arange(N + 1), np.arange(N), np.ones(N), shared=shared)
    found = estimate(OneStepInput(log, np.ones(N)), "policy", "snipw")
    bare = estimate(OneStepInput(replace(log, shared=None), np.ones(N)), "policy", "snipw")
    assert "prefix groups" in found.interval
    assert "prefix groups" not in bare.interval
    assert found.se_ms > 2 * bare.se_ms
    kept = np.arange(N) % 3 > 0
    some = log.only(kept).shared
    assert some is not None
    assert np.array_equal(some.group, shared.group[kept])
    with pytest.raises(DataError, match="prefix group has shape"):
        replace(log, shared=some)
    with pytest.raises(DataError, match="expected one of each"):
        SharedPrefixes(shared.group, shared.prompt_tokens[1:])


def test_the_groups_of_a_log_are_those_of_its_blocks_or_else_those_that_its_hits_show() -> None:
    """Hits cannot tell a group from its twin, which is as long: what groups add does not ask for it."""
    log = recorded(ReplayedWorld("sharing71", 400, 6.0), seed=0)
    first, logged = log.block_ids[log.block_offsets[:-1]], shared_of(log)
    assert np.bincount(logged.group).tolist() == [10] * 40
    assert np.array_equal(logged.group[:, None] == logged.group, first[:, None] == first)
    none = np.zeros(0, dtype=np.int64), np.zeros(401, dtype=np.int64)
    inferred = shared_of(replace(log, block_ids=none[0], block_offsets=none[1], block_tokens=None))
    assert inferred.between(34).added == pytest.approx(logged.between(34).added, rel=0.05)


def shared_of(log: RequestLog) -> SharedPrefixes:
    everything = np.ones(len(log), dtype=np.bool_)
    decisions = logged_inputs(log, workload_of(log), log.propensity, None, everything, 0).decisions
    assert decisions is not None
    assert decisions.shared is not None
    assert np.array_equal(decisions.shared.prompt_tokens, log.prompt_tokens)
    return decisions.shared
