from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import lightgbm as lgb
import numpy as np
import pytest

from lodestar.data.log import Floats, RequestLog
from lodestar.features.definitions import FEATURE_NAMES
from lodestar.features.matrix import chosen_features, decision_features
from lodestar.models.monotone import FASTER, SLOWER, monotone_constraints
from lodestar.models.surface import (
    DECODING,
    LESS_CACHED,
    LONGER_PROMPT,
    STEPS,
    WAITING,
    logged_steps,
    violations,
)

MakeLog = Callable[..., RequestLog]


def column(features: Floats, name: str) -> Floats:
    return features[:, FEATURE_NAMES.index(name)]


def moved(before: Floats, after: Floats) -> set[str]:
    return {name for name in FEATURE_NAMES if not np.array_equal(column(before, name), column(after, name), True)}


def test_what_is_derived_moves_along_with_a_waiting_request(make_log: MakeLog) -> None:
    before, steps = logged_steps(log := make_log(200), log.snapshot)
    after, typical = steps[WAITING], np.median(log.prompt_tokens)
    for name in ("waiting_requests", "inflight_requests", "inflight_prefill_requests", "queued_requests"):
        assert column(after, name) == pytest.approx(column(before, name) + 1)
    for name in ("prefill_tokens", "tokens_to_first_token"):
        assert column(after, name) == pytest.approx(column(before, name) + typical)
    assert column(after, "tokens_above_mean") == pytest.approx(column(before, "tokens_above_mean") + typical * 2 / 3)
    risen = column(after, "tokens_above_best") - column(before, "tokens_above_best")
    assert ((risen >= 0) & (risen <= typical + 1e-6)).all()  # less than all of it where it was the best
    assert moved(before, after) == {
        "waiting_requests", "inflight_requests", "inflight_prefill_requests", "queued_requests", "prefill_tokens",
        "tokens_to_first_token", "inflight_above_best", "inflight_above_mean", "tokens_above_best", "tokens_above_mean",
    }  # fmt: skip


def test_only_the_chosen_candidate_takes_a_step(make_log: MakeLog) -> None:
    log = make_log(50)
    kept = {name: values.copy() for name, values in log.snapshot.items()}
    before, steps = logged_steps(log, log.snapshot)
    assert all(np.array_equal(kept[name], log.snapshot[name]) for name in kept)
    assert np.array_equal(before, chosen_features(log, decision_features(log, log.snapshot)))
    assert tuple(steps) == STEPS
    undecided = replace(log, chosen=np.where(np.arange(50) < 10, -1, log.chosen))
    for after in (logged_steps(undecided, log.snapshot)[0], *logged_steps(undecided, log.snapshot)[1].values()):
        assert np.isnan(after[:10]).all()
        assert not np.isnan(after[10:]).any()


def test_a_decoding_request_brings_the_tokens_it_has_generated(make_log: MakeLog) -> None:
    before, steps = logged_steps(log := make_log(100), log.snapshot)
    assert column(steps[DECODING], "decode_tokens") == pytest.approx(column(before, "decode_tokens") + 50)
    assert column(steps[DECODING], "running_requests") == pytest.approx(column(before, "running_requests") + 1)
    assert column(steps[DECODING], "queued_requests") == pytest.approx(column(before, "queued_requests"))


def test_ten_points_are_lost_only_where_there_are_some(make_log: MakeLog) -> None:
    before, steps = logged_steps(log := make_log(300), log.snapshot)
    hit, after = column(before, "hit_ratio"), column(steps[LESS_CACHED], "hit_ratio")
    assert after == pytest.approx(np.maximum(hit - 0.1, 0.0))
    assert np.array_equal(before[hit == 0], steps[LESS_CACHED][hit == 0])
    table = violations(lambda rows: column(rows, "uncached_prompt_tokens"), before, {LESS_CACHED: steps[LESS_CACHED]})
    assert table[0]["rows"] == (hit > 0).sum()
    assert table[0]["falls"] == 0.0


def test_a_surface_without_slopes_does_not_fall(make_log: MakeLog) -> None:
    before, steps = logged_steps(log := make_log(100), log.snapshot)
    for line in violations(lambda rows: np.full(len(rows), 5.0), before, steps):
        assert (line["falls"], line["mean_fall_ms"], line["worst_fall_ratio"]) == (0.0, 0.0, 0.0)


def test_the_table_tells_how_far_and_where_a_prediction_falls(make_log: MakeLog) -> None:
    before, steps = logged_steps(log := make_log(400), log.snapshot)

    def dips(rows: Floats) -> Floats:
        """Fall by 30 of 100 ms from two waiting requests on."""
        return np.where(column(rows, "waiting_requests") < 2, 100.0, 70.0)

    table = violations(dips, before, steps)
    lines = {line["waiting_requests"]: line for line in table if line["step"] == WAITING}
    one = column(before, "waiting_requests") == 1
    assert lines["all"]["rows"] == 400
    assert lines["all"]["falls"] == pytest.approx(one.mean())
    assert lines["1-2"]["falls"] == pytest.approx(one.sum() / lines["1-2"]["rows"])
    assert lines["0"]["falls"] == 0.0
    assert lines["1-2"]["mean_fall_ms"] == lines["1-2"]["worst_fall_ms"] == pytest.approx(30.0)
    assert lines["all"]["mean_fall_ratio"] == pytest.approx(0.3)
    assert sum(line["rows"] for name, line in lines.items() if name != "all") == 400
    assert all(line["falls"] == 0.0 for line in table if line["step"] in (DECODING, LONGER_PROMPT, LESS_CACHED))


def test_constraints_follow_the_features_asked_for() -> None:
    assert monotone_constraints(["hit_ratio", "waiting_requests", "kv_usage_ratio"]) == [-1, 1, 0]
    assert set(FEATURE_NAMES) >= SLOWER | FASTER
    assert not SLOWER & FASTER
    assert monotone_constraints(FEATURE_NAMES[::-1]) == monotone_constraints(FEATURE_NAMES)[::-1]


def test_constrained_trees_never_fall_by_a_step_that_free_trees_fall_by(make_log: MakeLog) -> None:
    log = make_log(1500)
    before, steps = logged_steps(log, log.snapshot)
    held_to = sorted(SLOWER | FASTER)
    columns = [FEATURE_NAMES.index(name) for name in held_to]
    noisy = np.random.default_rng(0).normal(size=len(before)) - 0.3 * column(before, "waiting_requests")
    common = {"min_data_in_leaf": 20, "num_threads": 1, "deterministic": True, "verbose": -1, "seed": 0}
    free, held = (
        lgb.train(common | more, lgb.Dataset(before[:, columns], noisy), 30)
        for more in ({}, {"monotone_constraints": monotone_constraints(held_to)})
    )
    falls = {
        name: {
            line["step"]: line["falls"]
            for line in violations(lambda rows: 100 + booster.predict(rows[:, columns]), before, steps)  # noqa: B023
            if line["waiting_requests"] == "all"
        }
        for name, booster in (("free", free), ("held", held))
    }
    assert falls["free"][WAITING] > 0.5
    assert falls["held"][WAITING] == falls["held"][LESS_CACHED] == 0.0
