"""Tails, tests of two routers and logs of several, scored against truths that other code finds again."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from lodestar.pipeline.validation import beyond_coverage as beyond
from lodestar.pipeline.validation import mixed_coverage as mixed
from lodestar.pipeline.validation import tails_coverage as tails
from lodestar.pipeline.validation.scored import Answer, Scored, scored
from lodestar.reports.validation_log import metrics_of
from lodestar.reports.validation_page import page, validation_grids
from lodestar.reports.validation_scores import SCORES, score_words

LOGS = 12


@cache
def found() -> dict[str, list[Scored]]:
    return {
        "tails": tails.tails_coverage(LOGS),
        "several-routers": mixed.mixed_coverage(LOGS),
        "beyond": beyond.beyond_coverage(LOGS),
    }


def of(part: str, setting: str, estimator: str) -> Scored:
    return next(each for each in found()[part] if (each.setting, each.estimator) == (setting, estimator))


def test_the_truth_of_tails_is_that_of_costs_drawn_under_the_policy() -> None:
    random, kinds, truth = np.random.default_rng(1), tails._Kinds.all(), tails._truth()
    made = tails._world(random, 400_000)
    column = (random.random((len(made.kind), 1)) > made.target.cumsum(axis=1)[:, :-1]).sum(axis=1)
    kind = made.kind[np.arange(len(column)), column]
    cost = np.exp(kinds.log_mean[kind] + kinds.log_sd[kind] * random.normal(size=len(kind)))
    for level in (50, 90, 99):
        assert truth[f"p{level}"] == pytest.approx(np.quantile(cost, level / 100), rel=0.01)
    assert truth["cvar90"] == pytest.approx(cost[cost >= np.quantile(cost, 0.9)].mean(), rel=0.01)
    assert truth["slo"] == pytest.approx(np.mean(cost <= 250.0), abs=0.002)


def test_tails_are_told_and_right_where_the_model_alone_is_not() -> None:
    for measure in ("p50", "p90", "p99", "cvar90", "slo"):
        setting = f"{measure}, a model blind to hits"
        for estimator in ("snipw", "dr"):
            row = of("tails", setting, estimator)
            assert row.refused_ratio < 0.5
            assert row.coverage is not None
            assert row.coverage >= 0.7  # 9 of 12 that hold 19 times in 20; fewer by luck once in 400
        blind = of("tails", setting, "dm")
        assert blind.coverage == 0
        assert blind.relative_error > 2 * of("tails", setting, "dr").relative_error  # type: ignore[operator]


def test_propensities_and_truth_of_several_routers_are_right() -> None:
    for likes in mixed._SETTINGS.values():
        made = [mixed._logged(seed, likes) for seed in range(20)]
        weight = np.concatenate([rows.target[rows.log.chosen] / rows.log.propensity for rows, _ in made])
        balanced = np.concatenate([rows.target[rows.log.chosen] / each.mean(axis=0) for rows, each in made])
        cost = np.concatenate([rows.log.cost for rows, _ in made])
        truth = mixed._LEAST + mixed._SPREAD / 9
        for w in (weight, balanced):
            assert w.mean() == pytest.approx(1.0, abs=4 * w.std() / len(w) ** 0.5)
            assert (w * cost).mean() == pytest.approx(truth, abs=4 * (w * cost).std() / len(w) ** 0.5)


def test_the_mean_propensity_of_two_routers_takes_noise_off() -> None:
    rows = {each.estimator: each for each in found()["several-routers"] if each.setting == "two halves"}
    assert set(rows) == {"snipw", "dr", "balanced-snipw", "balanced-dr", "weighted-snipw", "weighted-dr"}
    assert all(each.coverage is not None and each.coverage >= 0.7 for each in rows.values())
    assert rows["balanced-dr"].relative_error < rows["dr"].relative_error  # type: ignore[operator]


def test_a_test_of_two_routers_finds_what_the_plain_difference_does_not() -> None:
    setting = "a bad and a good one"
    plain, turns = (of("beyond", setting, name) for name in ("plain difference", "switchback"))
    assert plain.truth < -1
    assert plain.coverage == 0
    assert turns.relative_error < 0.5 * plain.relative_error  # type: ignore[operator]
    alone, corrected = (of("beyond", "one step from logged states", n) for n in ("simulator alone", "control variate"))
    assert corrected.coverage > alone.coverage  # type: ignore[operator]
    assert abs(corrected.bias) < 0.5 * abs(alone.bias)  # type: ignore[arg-type]


def test_routed_at_random_every_server_is_a_queue_of_its_own() -> None:
    """M/M/1: a request stays for 1 / (speed − rate) on average."""
    run = beyond._queue([beyond._uniform], np.zeros((1500, 400), np.int64), 3)
    cost, server = run.cost[500:], run.server[500:]
    for place, speed in enumerate(beyond._SPEEDS):
        assert cost[server == place].mean() == pytest.approx(1 / (speed - beyond._RATE / 3), rel=0.04)


def test_all_is_on_the_page_and_in_the_metrics_the_bad_marked() -> None:
    coverage: dict[str, Any] = {name: [row.to_dict() for row in rows] for name, rows in found().items()}
    document = {
        "command": "c", "seed": 0, "cores": 2, "seconds": {"coverage": 1.0},
        "coverage": {"bandits": [], "replayed": [], "limits": [], **coverage},
    }  # fmt: skip
    grids, text, metrics = validation_grids(document), page(document), dict(metrics_of(document))
    for name, (title, words) in SCORES.items():
        assert title == grids[name].title
        assert f"{words} Too few repetitions to judge." in text
        for row in coverage[name]:
            assert metrics[f"coverage/{name}/{row['setting']}/{row['estimator']}/coverage"] == row["coverage"]
    cells = {row[0].text: row for row in grids["beyond"].rows}
    assert cells["a bad and a good one"][1].mark == "bad"


def test_what_does_not_hold_is_named_on_the_page() -> None:
    rows = [
        {"setting": "s", "estimator": name, "coverage": share, "repetitions": 300}
        for name, share in (("dr", 0.95), ("dm", 0.4), ("snipw", None))
    ]
    assert score_words("tails", {"tails": rows}).endswith("Outside 0.91 to 0.99: dm of s (0.400).")
    assert score_words("tails", {"tails": rows[::2]}).endswith("All hold as often as they say.")


def test_a_refusal_counts_as_one_and_as_no_error() -> None:
    none = scored("s", "dr", [None, None], 1.0)
    assert (none.refused_ratio, none.coverage, none.relative_error) == (1.0, None, None)
    some = scored("s", "dr", [Answer(-2.0, -2.5, -1.5), None], -1.0)
    assert (some.refused_ratio, some.coverage, some.relative_error, some.bias) == (0.5, 0.0, 1.0, -1.0)
