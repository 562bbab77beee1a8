"""llm-d's latency predictor as it is configured by default: its columns, its hyperparameters, its two tree libraries.

From llm-d-latency-predictor at 04e44cd (2026-08-10), ``training/training_server.py``. The columns are computed from the
features that ours sees; what the logs lack (encoder sizes, the kind of pod) is 0, as its own default. The number of
generated tokens is not known when a router decides: it is 0 in training too (its LATENCY_TPOT_ZERO_TOKEN_COUNT).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.features.definitions import FEATURE_NAMES

__all__ = ["TPOT_COLUMNS", "TTFT_COLUMNS", "XGBOOST_MISSING", "columns", "llm_d"]

Floats = NDArray[np.float64]
Predict = Callable[[Floats], Floats]

TTFT_COLUMNS = (
    "is_queued", "kv_cache_percentage", "input_token_length", "num_request_waiting", "num_request_running",
    "prefill_tokens_in_flight", "decode_tokens_in_flight", "encoder_matched_size", "encoder_input_size",
    "prefix_cache_score", "effective_input_tokens", "prefill_score_bucket", "pod_type_cat",
)  # fmt: skip
TPOT_COLUMNS = (
    "is_queued", "kv_cache_percentage", "input_token_length", "num_request_waiting", "num_request_running",
    "prefill_tokens_in_flight", "decode_tokens_in_flight", "num_tokens_generated", "pod_type_cat",
)  # fmt: skip
#: Columns that LightGBM and XGBoost get as categories; both kinds of pod are one here, so only the bucket can split.
CATEGORIES = ("prefill_score_bucket", "pod_type_cat")
#: Columns that the two sub-models of the gated ensemble lack where nothing waits.
QUEUE_COLUMNS = ("is_queued", "num_request_waiting")
MIN_GATED = 200  # rows with and rows without a queue that the ensemble needs
ALPHA = 0.9

XGBOOST_MISSING = None if find_spec("xgboost") else "xgboost is not installed: pip install -e '.[peer-xgboost]'"

_XGBOOST: dict[str, Any] = {
    "n_estimators": 200, "max_depth": 6, "learning_rate": 0.05, "subsample": 0.8, "colsample_bytree": 0.8,
    "min_child_weight": 5, "gamma": 0.2, "reg_alpha": 0.01, "reg_lambda": 0.1, "tree_method": "hist", "n_jobs": 1,
}  # fmt: skip
_LIGHTGBM: dict[str, Any] = {
    "n_estimators": 200, "max_depth": 6, "learning_rate": 0.05, "subsample": 0.8, "colsample_bytree": 0.8,
    "min_child_samples": 20, "reg_alpha": 0.1, "reg_lambda": 0.1, "force_col_wise": True, "n_jobs": 1, "verbose": -1,
}  # fmt: skip


def columns(features: Floats, names: tuple[str, ...] = TTFT_COLUMNS) -> Floats:
    """Return the named columns of every row, shape (n, len(names)); what the log lacks is 0."""

    def known(name: str) -> Floats:
        return np.nan_to_num(features[:, FEATURE_NAMES.index(name)], nan=0.0)

    hit, prompt, waiting = known(schema.HIT_RATIO), known(schema.PROMPT_TOKENS), known(schema.WAITING_REQUESTS)
    zero = np.zeros(len(features))
    made = {
        "is_queued": (waiting > 0).astype(np.float64),
        "kv_cache_percentage": known(schema.KV_USAGE_RATIO),
        "input_token_length": prompt,
        "num_request_waiting": waiting,
        "num_request_running": known(schema.RUNNING_REQUESTS),
        "prefill_tokens_in_flight": known(schema.PREFILL_TOKENS),
        "decode_tokens_in_flight": known(schema.DECODE_TOKENS),
        "prefix_cache_score": hit,
        "effective_input_tokens": (1.0 - hit) * prompt,
        "prefill_score_bucket": np.clip(np.floor(4.0 * hit), 0.0, 3.0),
    }
    return np.stack([made.get(name, zero) for name in names], axis=1)


def llm_d(
    library: str,
    objective: str,
    features: Floats,
    latency_ms: Floats,
    seed: int,
    gated: bool = False,
    names: tuple[str, ...] = TTFT_COLUMNS,
) -> Predict:
    """Train it, and return how it predicts ms for rows of features.

    Args:
        library: 'xgboost' or 'lightgbm'.
        objective: 'mean' or 'quantile' (0.9).
        features: shape (n, len(FEATURES)).
        latency_ms: TTFT or TPOT, shape (n,).
        seed: 42 in the original.
        gated: whether requests that meet a queue and those that meet none get a model each, given enough of both.
        names: its columns: of TTFT, or of TPOT.
    """
    make = {"xgboost": _xgboost, "lightgbm": _lightgbm}[library]
    queued = columns(features)[:, 0] > 0
    if not gated or min(queued.sum(), (~queued).sum()) < MIN_GATED:
        return make(names, objective, features, latency_ms, seed)
    without = tuple(name for name in names if name not in QUEUE_COLUMNS)
    busy = make(names, objective, features[queued], latency_ms[queued], seed)
    free = make(without, objective, features[~queued], latency_ms[~queued], seed)
    return lambda rows: np.where(columns(rows)[:, 0] > 0, busy(rows), free(rows))


def _xgboost(names: tuple[str, ...], objective: str, features: Floats, latency_ms: Floats, seed: int) -> Predict:
    import xgboost

    kinds = ["c" if name in CATEGORIES else "float" for name in names]
    learner = {"objective": "reg:squarederror"}
    if objective == "quantile":
        learner = {"objective": "reg:quantileerror", "quantile_alpha": ALPHA}
    model = xgboost.XGBRegressor(**_XGBOOST, **learner, random_state=seed, enable_categorical=True, feature_types=kinds)
    model.fit(columns(features, names), latency_ms)
    return lambda rows: np.maximum(model.predict(columns(rows, names)).astype(np.float64), 0.0)


def _lightgbm(names: tuple[str, ...], objective: str, features: Floats, latency_ms: Floats, seed: int) -> Predict:
    learner = {"objective": "quantile", "alpha": ALPHA} if objective == "quantile" else {"objective": "regression"}
    model = lgb.LGBMRegressor(**_LIGHTGBM, **learner, random_state=seed)
    categories = [names.index(name) for name in CATEGORIES if name in names]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it says that it was told of categories
        model.fit(columns(features, names), latency_ms, categorical_feature=categories)
    return lambda rows: np.maximum(np.asarray(model.predict(columns(rows, names))), 0.0)
