from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lodestar.data.errors import DataError
from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.evaluation.decisions import Decisions
from lodestar.models.fit import fit
from lodestar.models.parameters import Parameters
from lodestar.models.rivals import linear_rival
from lodestar.models.rows import Rows
from lodestar.models.tuning.folds import BLOCKS, FOLDS, folds, fresh_folds, pieces
from lodestar.models.tuning.groups import GROUPS, features_of
from lodestar.models.tuning.locks import claim, is_held
from lodestar.models.tuning.losses import ERRORS
from lodestar.models.tuning.pruning import clearly_worse
from lodestar.models.tuning.regret import regret_of
from lodestar.models.tuning.space import Space
from lodestar.models.tuning.speed import CANDIDATES, Speed, measured_us

MAE = ERRORS["mae"]


def test_every_fold_learns_only_from_what_finished_before_it(make_rows: Callable[..., Rows]) -> None:
    parts = folds(make_rows(400), MAE)
    assert len(parts) == FOLDS
    for fold in parts:
        assert fold.earlier.finished_at_s.max() <= fold.later.arrived_at_s.min()
    measured = [index for fold in parts for index in fold.later.request_index.tolist()]
    assert measured == list(range(240, 400))


def test_fresh_folds_cut_elsewhere(make_rows: Callable[..., Rows]) -> None:
    rows = make_rows(400)
    cuts, fresh = ({int(fold.later.request_index[0]) for fold in made(rows, MAE)} for made in (folds, fresh_folds))
    assert not cuts & fresh


def test_the_blocks_of_a_fold_have_its_mean(make_rows: Callable[..., Rows]) -> None:
    fold = folds(make_rows(400), MAE)[0]
    losses = fold.losses(fit(fold.earlier, "ttft_ms", Parameters(), 0, heads=False)[0])
    blocks = pieces(losses, BLOCKS)
    lengths = np.array([len(losses) // BLOCKS] * BLOCKS)
    lengths[-1] += len(losses) - lengths.sum()
    assert len(blocks) == BLOCKS
    assert pieces(losses, 1) == pytest.approx(losses.mean())


@pytest.mark.parametrize("name", ERRORS)
def test_a_loss_is_a_share_of_that_of_linear_regression(name: str, make_rows: Callable[..., Rows]) -> None:
    fold, metric = folds(make_rows(400), ERRORS[name])[-1], ERRORS[name]
    model, _ = fit(fold.earlier, "ttft_ms", Parameters(), 0, heads=metric.heads)
    predicted_ms, measured_ms = metric.predict(model, fold.later), fold.later.latency_ms
    by_line_ms = metric.linear(fold.earlier, fold.later.features)
    wanted = metric.loss(measured_ms, predicted_ms).mean() / metric.loss(measured_ms, by_line_ms).mean()
    assert fold.losses(model).mean() == pytest.approx(wanted)


def test_a_bound_blames_only_predictions_below_it(make_rows: Callable[..., Rows]) -> None:
    rows = make_rows(400)
    fold = folds(rows, MAE)[-1]
    model, _ = fit(fold.earlier, "ttft_ms", Parameters(), 0, heads=False)
    later = replace(fold.later, censored=np.ones(len(fold.later), dtype=np.bool_))
    losses = MAE.on(fold.earlier, later)(model)
    above = model.predict(later.features) > later.latency_ms
    assert (losses[above] == 0.0).all()
    assert (losses[~above] > 0.0).all()


def test_features_go_with_the_groups_that_they_need() -> None:
    assert features_of(frozenset()) == FEATURE_NAMES
    without_cache = features_of(frozenset({"cache"}))
    assert not [name for name in without_cache if "hit" in name or "uncached" in name or name.startswith("tokens_")]
    for group in GROUPS:
        assert len(features_of(frozenset({group}))) < len(FEATURE_NAMES)
        assert "prompt_tokens" in features_of(frozenset(GROUPS) - {group})


def test_a_small_window_keeps_enough_rows_to_train_on() -> None:
    space = Space(("ms",), ("relative",))
    chosen = space.defaults() | {"window_share": 0.3, "use_relative": False}
    parameters = space.parameters(chosen, 100)
    assert parameters.window_requests == 50
    assert parameters.features == Parameters().features
    more = space.parameters(chosen | {"use_relative": True}, 100)
    assert set(more.features) - set(parameters.features) == {
        "inflight_above_best", "inflight_above_mean", "tokens_above_best", "tokens_above_mean",
    }  # fmt: skip


def test_pruning_needs_blocks_and_a_worse_mean() -> None:
    assert not clearly_worse(np.full(5, 1.0))
    assert clearly_worse(np.full(6, 1.0))
    assert not clearly_worse(np.array([0.1] * 17 + [-9.0]))  # worse nearly everywhere, better in the mean


def test_equals_are_seldom_given_up() -> None:
    """Looks after 6, 9, 12 and 15 blocks at 5 % each give up about one in eight trials that are as good as the best."""
    random = np.random.default_rng(0)
    trials = [random.normal(size=18) for _ in range(400)]
    stopped = [any(clearly_worse(trial[:seen]) for seen in (6, 9, 12, 15)) for trial in trials]
    assert 0.05 < np.mean(stopped) < 0.16


def test_an_unclaimed_name_is_dead_and_a_claim_lives_as_long_as_its_block(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "nobody")
    with claim(tmp_path) as name:
        assert is_held(tmp_path / name)
    assert not is_held(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_the_estimate_of_a_decision_is_near_the_measured_time(make_rows: Callable[..., Rows]) -> None:
    rows = make_rows(400)
    speed = Speed.measure(rows, "ttft_ms", 0)
    model, _ = fit(rows, "ttft_ms", Parameters(), 0, heads=False)
    measured, leaves = measured_us(model, rows.features), sum(len(tree) for tree in _leaves(model.booster))
    estimated = speed.fixed_us + leaves * CANDIDATES * speed.ns_per_leaf / 1000.0
    assert measured / 4 < estimated < 4 * measured
    assert speed.decision_us(200, 31) > speed.decision_us(100, 31) > speed.fixed_us


def _leaves(booster: object) -> list[list[str]]:
    text: str = booster.model_to_string()  # type: ignore[attr-defined]
    return [line.split("=")[1].split() for line in text.splitlines() if line.startswith("leaf_value=")]


@pytest.fixture
def decided(make_rows: Callable[..., Rows]) -> tuple[Decisions, Rows]:
    """Three candidates, drawn at random, of which the model's own law is known; the chosen is the first."""
    rows, random = make_rows(300), np.random.default_rng(1)
    features = random.uniform(0.0, 5.0, (300, 3, len(FEATURE_NAMES)))
    features[:, :, FEATURE_NAMES.index("prefill_tokens")] = random.uniform(0.0, 9000.0, (300, 3))
    features[:, 0] = rows.features
    decisions = Decisions(features, np.ones((300, 3), dtype=np.bool_), np.zeros(300, dtype=np.int64), {}, [""] * 3)
    return decisions, replace(rows, propensity=np.full(300, 1 / 3))


def test_picks_are_worth_what_the_doubly_robust_estimate_says(decided: tuple[Decisions, Rows]) -> None:
    decisions, rows = decided
    fold = folds(rows, regret_of(decisions, rows, "made"))[-1]
    model, _ = fit(fold.earlier, "ttft_ms", Parameters(), 0, heads=False)
    wanted = []
    for row, request in enumerate(fold.later.request_index):
        candidates = decisions.features[request]
        pick, line_ms = int(model.predict(candidates).argmin()), linear_rival(fold.earlier, candidates)
        correction = 3.0 * (fold.later.latency_ms[row] - line_ms[0]) if pick == 0 else 0.0
        wanted.append((line_ms[pick] + correction) / fold.later.latency_ms.mean())
    assert fold.losses(model) == pytest.approx(wanted)
    assert fold.losses(model).mean() < 0.9  # the least of three is below the mean


def test_regret_needs_propensities(decided: tuple[Decisions, Rows]) -> None:
    decisions, rows = decided
    unknown = replace(rows, propensity=np.where(np.arange(300) < 2, np.nan, rows.propensity))
    with pytest.raises(DataError, match="--metric regret: 2 of 300 decisions of dataset 'made' have no propensity"):
        regret_of(decisions, unknown, "made")
