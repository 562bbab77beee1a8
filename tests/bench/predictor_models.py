"""The predictors of the benchmark, ours and the others, behind one shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray
from predictor_peers import TPOT_COLUMNS, TTFT_COLUMNS, XGBOOST_MISSING, llm_d

from lodestar.data.schema import TPOT_MS, TTFT_MS
from lodestar.models.fit import fit
from lodestar.models.network.network import NetworkSettings, PublishedNetwork
from lodestar.models.parameters import Parameters
from lodestar.models.rivals import constant_rival, linear_rival
from lodestar.models.rows import Rows

__all__ = ["OURS", "PREDICTORS", "Predict", "Predictor", "Trained"]

Floats = NDArray[np.float64]
Predict = Callable[[Floats], Floats]

OURS = "Lodestar"
P90 = 0.9
LONG = NetworkSettings(epochs=200, decay_per_epoch=0.99)


@dataclass(frozen=True, slots=True)
class Trained:
    """How a trained predictor predicts (n, len(FEATURES)) → (n,) ms: the latency to expect, and its P90."""

    mean_ms: Predict
    p90_ms: Predict


#: Rows, seed, and the target that the rows are of → the trained predictor.
Train = Callable[[Rows, int, str], Trained]


@dataclass(frozen=True, slots=True)
class Predictor:
    """One row of the tables.

    Attributes:
        train: how it learns.
        seeds: how many times it is trained; 1 where no seed matters, or time forbids more.
        note: what it is.
        missing: why it cannot run here; None if it can.
        targets: what it predicts.
    """

    train: Train
    seeds: int
    note: str
    missing: str | None = None
    targets: tuple[str, ...] = (TTFT_MS, TPOT_MS)


def _ours(rows: Rows, seed: int, target: str) -> Trained:
    model, _ = fit(rows, target, Parameters(), seed)
    return Trained(model.predict, lambda features: model.predict_quantile(features, "p90"))


def _constant(rows: Rows, seed: int, target: str) -> Trained:
    p90 = float(np.quantile(rows.latency_ms, P90))
    return Trained(lambda features: constant_rival(rows, features), lambda features: np.full(len(features), p90))


def _linear(rows: Rows, seed: int, target: str) -> Trained:
    return _with_ratio(lambda features: linear_rival(rows, features), rows)


def _with_ratio(mean_ms: Predict, rows: Rows) -> Trained:
    """Give a predictor without quantiles the ratio that its training errors stay below in 90 % of the rows."""
    ratio = float(np.quantile(rows.latency_ms / mean_ms(rows.features), P90))
    return Trained(mean_ms, lambda features: ratio * mean_ms(features))


def _network(settings: NetworkSettings | None = None) -> Train:
    def train(rows: Rows, seed: int, target: str) -> Trained:
        network, shortest = PublishedNetwork(seed, settings).fit(rows.features, rows.latency_ms), rows.latency_ms.min()
        return _with_ratio(lambda features: np.maximum(network.predict(features), shortest), rows)

    return train


def _plain(rows: Rows, seed: int, target: str) -> Trained:
    def trees(**objective: object) -> Predict:
        parameters = {**objective, "seed": seed, "num_threads": 1, "deterministic": True, "verbose": -1}
        booster = lgb.train(parameters, lgb.Dataset(rows.features, rows.latency_ms))
        return lambda features: np.maximum(np.asarray(booster.predict(features)), rows.latency_ms.min())

    return Trained(trees(objective="l2"), trees(objective="quantile", alpha=P90))


def _llm_d(library: str, gated: bool = False) -> Train:
    def train(rows: Rows, seed: int, target: str) -> Trained:
        names = TPOT_COLUMNS if target == TPOT_MS else TTFT_COLUMNS
        mean, p90 = (
            _above(llm_d(library, objective, rows.features, rows.latency_ms, seed, gated, names), rows)
            for objective in ("mean", "quantile")
        )
        return Trained(mean, p90)

    return train


def _above(predict: Predict, rows: Rows) -> Predict:
    """Never predict less than the shortest latency seen: it has no logarithm to be judged by where it is 0."""
    return lambda features: np.maximum(predict(features), rows.latency_ms.min())


#: Name → predictor; ours is first.
PREDICTORS = {
    OURS: Predictor(_ours, 3, "`lodestar.models.fit` with its default parameters"),
    "linear": Predictor(_linear, 1, "ordinary least squares in ms on the same features"),
    "constant": Predictor(_constant, 1, "the median and the P90 of the training rows"),
    "plain LightGBM": Predictor(_plain, 1, "LightGBM's defaults on the same features: L2, and quantile 0.9, in ms"),
    "llm-d LightGBM": Predictor(
        _llm_d("lightgbm"), 3, "its columns (13 of TTFT, 9 of TPOT) and hyperparameters; mean, and quantile 0.9"
    ),
    "llm-d XGBoost": Predictor(_llm_d("xgboost"), 3, "the same by its default library", XGBOOST_MISSING),
    "llm-d XGBoost, gated": Predictor(
        _llm_d("xgboost", gated=True), 1, "one model where requests wait, one where none does", XGBOOST_MISSING
    ),
    "published network": Predictor(
        _network(), 3, "Lodestar's published network and training, 20 epochs", targets=(TTFT_MS,)
    ),
    "network, 200 epochs": Predictor(
        _network(LONG), 1, "the same, 200 epochs, learning rate down by 1 % an epoch: not published", targets=(TTFT_MS,)
    ),
}
