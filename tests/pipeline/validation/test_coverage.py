from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from lodestar.data.log import Workload
from lodestar.pipeline.estimation.intervals.interval import OVER_TRAFFIC
from lodestar.pipeline.estimation.intervals.same_requests import SAME_REQUESTS
from lodestar.pipeline.replay.decisions import score_decisions
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.routing.contract import Fleet
from lodestar.pipeline.validation.bandit_logs import COSTS, SETTINGS, Setting, bandit_logs
from lodestar.pipeline.validation.coverage import LINEARISED, Coverage, coverage_table
from lodestar.pipeline.validation.replayed_coverage import replayed_coverage
from lodestar.pipeline.validation.replayed_logs import TARGETS, WORLDS, ReplayedWorld, least, recorded

SHORT = ReplayedWorld("uneven", 1500, 6.0)
GROUPS = ReplayedWorld("sharing28", 1500, 4.0)
DEALT = ReplayedWorld("sharing28", 800, 6.0, same_requests=True)


@cache
def table() -> dict[tuple[str, str], Coverage]:
    rows = coverage_table(300, seed=1, intervals=("snipw", "dr"))
    return {(row.setting, row.interval): row for row in rows}


@pytest.mark.parametrize("setting", [setting.name for setting in SETTINGS])
@pytest.mark.parametrize("estimator", ["snipw", "dr"])
def test_intervals_hold_as_often_as_they_say(setting: str, estimator: str) -> None:
    row = table()[setting, estimator]
    assert row.repetitions == 300
    assert 0.91 <= row.coverage <= 0.99
    assert row.estimand == OVER_TRAFFIC


def test_the_settings_are_those_of_the_specification() -> None:
    ess = [table()[setting.name, "snipw"].ess_ratio for setting in SETTINGS]
    largest = [table()[setting.name, "snipw"].largest_weight for setting in SETTINGS]
    assert ess == pytest.approx([0.125, 0.07, 0.03], rel=0.1)
    assert largest[0] == 8.0
    assert 40 < largest[1] < 80 < largest[2] < 165


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_the_truth_is_true_and_the_propensities_are_right(setting: Setting) -> None:
    logs = bandit_logs(setting, 40, seed=2)
    for values, truth in ((logs.expected, logs.truth), (logs.weight, 1.0), (logs.weight * logs.cost, logs.truth)):
        assert values.mean() == pytest.approx(truth, abs=4 * values.std() / np.sqrt(values.size))
    assert logs.weight.max() <= setting.largest_weight
    COSTS.check(logs.cost)


def test_the_conservative_intervals_hold_always_and_are_wider() -> None:
    rows = {(row.setting, row.interval): row for row in coverage_table(30, seed=3)}
    for setting in SETTINGS:
        widths = [rows[setting.name, name].mean_width for name in ("snipw", "cressie-read", "empirical-bernstein")]
        assert widths == sorted(widths)
        for name in ("cressie-read", "empirical-bernstein", "confidence-sequence"):
            assert rows[setting.name, name].coverage > 0.9
    assert {name for _, name in rows} > set(LINEARISED)
    assert "at every time" in rows["averse", "confidence-sequence"].to_dict()["estimand"]


def test_the_targets_of_replayed_logs_are_the_policies_of_that_name() -> None:
    log = recorded(ReplayedWorld("sharing71", 300, 8.0), seed=0)
    workload = Workload(
        log.arrived_at_s, log.prompt_tokens, log.output_tokens, log.block_ids, log.block_offsets, log.block_tokens
    )
    for name, field in TARGETS.items():
        scored = score_decisions(make_policy(name), log, workload, log.snapshot, Fleet(log.instances, None))
        assert np.allclose(scored.probability, least(log.snapshot[field]), atol=1e-12), name


def test_the_same_requests_come_in_another_order_at_other_times() -> None:
    one, other = (recorded(DEALT, seed) for seed in (1, 2))
    assert np.array_equal(np.sort(one.prompt_tokens), np.sort(other.prompt_tokens))
    assert not np.array_equal(one.prompt_tokens, other.prompt_tokens)
    assert not np.array_equal(one.arrived_at_s, other.arrived_at_s)
    for log in (one, other):  # a request keeps its own blocks
        assert np.array_equal(np.diff(log.block_offsets), log.prompt_tokens // log.block_tokens)
    ids = [np.unique(log.block_ids, return_counts=True) for log in (one, other)]
    assert np.array_equal(ids[0], ids[1])


def test_blocks_cover_replayed_logs_where_single_decisions_do_not() -> None:
    """A small one; the slow test below measures."""
    told: list[tuple[str, int, int]] = []
    rows = {
        (row.setting, row.interval): row
        for row in replayed_coverage(30, progress=lambda *now: told.append(now), worlds=[SHORT])
    }
    for target in TARGETS:
        blocks, single = (rows[f"{SHORT.name}: {target}", f"dr by {how}"] for how in ("blocks", "single decisions"))
        assert blocks.coverage >= 0.8 > single.coverage
        assert single.mean_width < 0.6 * blocks.mean_width
        assert blocks.estimand == OVER_TRAFFIC
    assert told[-1] == ("replayed coverage", 90, 90)


def test_intervals_cover_where_prefix_groups_span_the_log() -> None:
    """By blocks alone 17 to 22 of 30 held; `lodestar validate` measures longer logs."""
    for row in replayed_coverage(30, worlds=[GROUPS]):
        if row.interval.endswith("blocks"):
            assert row.coverage >= 0.85, row


def test_intervals_for_the_same_requests_are_for_logs_that_have_them() -> None:
    """`lodestar validate` measures longer logs."""
    rows = {(row.setting, row.interval): row for row in replayed_coverage(30, worlds=[DEALT])}
    for target in TARGETS:
        setting = f"{DEALT.name}: {target}"
        same, blocks = rows[setting, "dr for the same requests"], rows[setting, "dr by blocks"]
        assert (same.estimand, blocks.estimand) == (SAME_REQUESTS, OVER_TRAFFIC)
        assert same.coverage >= 0.85
        assert same.mean_width < 0.7 * blocks.mean_width
    assert not any("same" in row.interval for row in replayed_coverage(2, worlds=[SHORT]))


def test_a_seed_repeats_the_table() -> None:
    assert replayed_coverage(2, seed=5, worlds=[SHORT]) == replayed_coverage(2, seed=5, worlds=[SHORT])


@pytest.mark.slow
def test_intervals_by_blocks_hold_on_replayed_logs() -> None:
    """The shortest world; `lodestar validate --part coverage` measures all of them."""
    for row in replayed_coverage(300, worlds=WORLDS[:1]):
        if row.interval.endswith("blocks"):
            assert 0.91 <= row.coverage <= 0.99, row
