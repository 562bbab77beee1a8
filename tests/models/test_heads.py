from __future__ import annotations

import lightgbm as lgb
import numpy as np

from lodestar.models.uncertainty.conformal import QUANTILES
from lodestar.models.uncertainty.heads import HEAD_OF, HEADS, fit_heads, quantile_log_ratios

COMMON = {"verbose": -1, "num_threads": 1, "seed": 0, "deterministic": True, "force_col_wise": True}
MEAN = {**COMMON, "objective": "l2", "num_leaves": 15, "min_data_in_leaf": 60, "learning_rate": 0.02}


def _rows(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Log ratios that spread with the first input; the second says nothing."""
    rng = np.random.default_rng(seed)
    inputs = rng.uniform(0.0, 1.0, (n, 2))
    return inputs, rng.normal(0.0, 0.1 + inputs[:, 0])


def _data(inputs: np.ndarray, log_ratio: np.ndarray) -> lgb.Dataset:
    weight = 0.5 + inputs[:, 1]
    return lgb.Dataset(inputs, log_ratio, weight=weight, params={"feature_pre_filter": False})


def test_sharing_the_rows_of_the_mean_is_exact() -> None:
    shared = _data(*_rows(3000))
    lgb.train(MEAN, shared, 20)
    after, alone = fit_heads(shared, COMMON), fit_heads(_data(*_rows(3000)), COMMON)
    assert {name: head.model_to_string() for name, head in after.items()} == {
        name: head.model_to_string() for name, head in alone.items()
    }


def test_the_p90_head_lies_where_the_spread_puts_it() -> None:
    head = fit_heads(_data(*_rows(20_000)), COMMON)["p90"]
    fresh, _ = _rows(2000, seed=1)
    truth = 1.2816 * (0.1 + fresh[:, 0])
    assert np.abs(head.predict(fresh) - truth).mean() < 0.1
    assert np.corrcoef(head.predict(fresh), truth)[0, 1] > 0.95


def test_p99_has_the_shape_of_the_p90_and_p50_that_of_the_mean_and_none_cross() -> None:
    data = _data(*_rows(3000))
    mean, heads = lgb.train(MEAN, data, 20), fit_heads(data, COMMON)
    inputs, _ = _rows(500, seed=2)
    found = quantile_log_ratios(mean, heads, inputs)
    assert found.shape == (500, len(QUANTILES))
    np.testing.assert_array_equal(found[:, 0], mean.predict(inputs))
    np.testing.assert_array_equal(found[:, 1], np.maximum(mean.predict(inputs), heads["p90"].predict(inputs)))
    np.testing.assert_array_equal(found[:, 2], found[:, 1])
    assert set(HEADS) == set(heads) == set(filter(None, HEAD_OF.values()))


def test_without_heads_the_mean_gives_every_shape() -> None:
    mean = lgb.train(MEAN, _data(*_rows(500)), 5)
    inputs, _ = _rows(50, seed=3)
    assert (quantile_log_ratios(mean, {}, inputs) == mean.predict(inputs)[:, None]).all()


def test_few_rows_give_one_leaf_rather_than_noise() -> None:
    head = fit_heads(_data(*_rows(150)), COMMON)["p90"]
    assert len(np.unique(head.predict(_rows(100, seed=4)[0]))) == 1


def test_no_leaf_is_smaller_than_its_tail_needs() -> None:
    data = lgb.Dataset(*_rows(3000), params={"feature_pre_filter": False})
    head = fit_heads(data, COMMON)["p90"]
    leaves = head.trees_to_dataframe().query("left_child.isnull()")
    assert leaves["count"].min() >= 200
    assert head.num_trees() <= 40
