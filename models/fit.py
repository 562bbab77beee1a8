"""Growing a `LatencyModel`, from nothing or on top of an earlier one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.baseline import Baseline, fit_baseline
from lodestar.models.latency import QUANTILES, LatencyModel
from lodestar.models.parameters import Parameters
from lodestar.models.rows import Rows

__all__ = ["MIN_ROWS", "Curve", "extend", "fit", "require_rows"]

Floats = NDArray[np.float64]

MIN_ROWS: Final = 50
RESIDUAL_SHARE: Final = 0.25  # newest share of the window whose errors, by a model without it, give the quantiles


@dataclass(slots=True)
class Curve:
    """Error of log(latency / baseline) after each round, of the training and the watched rows.

    It is the root of the mean square, where rows weigh in proportion to their baseline, as they do in the fit.
    """

    training: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)


def fit(
    rows: Rows, target: str, parameters: Parameters, seed: int, watch: Rows | None = None
) -> tuple[LatencyModel, Curve]:
    """Fit baseline and trees on the newest rows of the window; `watch` is scored each round, never learned from.

    The residual quantiles come from a first fit without the last quarter of the window; then all of it is fitted.
    """
    window = rows.last(parameters.window_requests)
    require_rows(window, target, f"keeping the newest {len(window)}" if len(window) < len(rows) else "")
    early, late = window.split_share(1.0 - RESIDUAL_SHARE)
    offsets = _offsets(_grow(early, target, parameters, seed)[0], late) if len(early) >= MIN_ROWS // 2 else None
    model, curve = _grow(window, target, parameters, seed, watch)
    return replace(model, residual_quantiles=offsets or _offsets(model, window)), curve


def extend(model: LatencyModel, rows: Rows, parameters: Parameters, seed: int) -> LatencyModel:
    """Add trees fitted to `rows` alone; the baseline and the trees so far stay as they are.

    The new trees see a new `Dataset` with bins of its own (bins taken over from the old one would hide loads beyond
    it). They learn what is left once the old model is set right in the mean: a change that is the same for all rows
    offers no split a gain, so LightGBM would stop at once; the mean ratio takes it up. The quantiles come from the
    model before the extension, for which the new rows are held out.
    """
    require_rows(rows, model.target)
    level = _mean_ratio(replace(model, mean_ratio=1.0), rows)
    data = _dataset(rows, model.baseline, level)
    booster = lgb.train(parameters.lightgbm(seed), data, parameters.update_rounds, init_model=model.booster)
    extended = replace(model, booster=booster, mean_ratio=1.0)
    extended = replace(extended, mean_ratio=_mean_ratio(extended, rows))
    return replace(extended, residual_quantiles=_offsets(model, rows))


def require_rows(rows: Rows, target: str, step: str = "") -> None:
    """Refuse too few rows; the error says how many requests the log has and what became of the others, `step` last."""
    if len(rows) >= MIN_ROWS:
        return
    without = [f"{len(those)} with {reason}" for reason, those in rows.excluded.items() if len(those)]
    steps = ([f"leaving out {', '.join(without)}"] if without else []) + ([step] if step else [])
    raise DataError(
        f"{len(rows)} of {rows.requests} requests are left to train {target}"
        f"{' after ' if steps else ''}{' and '.join(steps)}; expected at least {MIN_ROWS}. Ingest more of the log"
    )


def _grow(
    rows: Rows, target: str, parameters: Parameters, seed: int, watch: Rows | None = None
) -> tuple[LatencyModel, Curve]:
    baseline, curve = fit_baseline(rows.features, rows.latency_ms), Curve()
    booster = _train(rows, baseline, parameters, seed, watch, curve)
    model = LatencyModel(target, FEATURE_NAMES, baseline, booster, 1.0, {})
    return replace(model, mean_ratio=_mean_ratio(model, rows)), curve


def _train(
    rows: Rows,
    baseline: Baseline,
    parameters: Parameters,
    seed: int,
    watch: Rows | None,
    curve: Curve,
) -> lgb.Booster:
    data = _dataset(rows, baseline)
    watched = {"training": data} | ({"held_out": _dataset(watch, baseline)} if watch and len(watch) else {})
    history: dict[str, dict[str, list[float]]] = {}
    booster = lgb.train(
        {**parameters.lightgbm(seed), "metric": "rmse"},
        data,
        parameters.rounds,
        valid_sets=list(watched.values()),
        valid_names=list(watched),
        callbacks=[lgb.record_evaluation(history)],
    )
    curve.training, curve.held_out = (history.get(name, {}).get("rmse", []) for name in ("training", "held_out"))
    return booster


def _dataset(rows: Rows, baseline: Baseline, level: float = 1.0) -> lgb.Dataset:
    """Label with log(latency / (level * baseline)), not with `init_score`: `init_model` would override that.

    Rows weigh in proportion to their baseline, because what counts is the error in ms, not in ratio.
    """
    physical = baseline.predict(rows.features)
    return lgb.Dataset(
        rows.features,
        np.log(rows.latency_ms / (level * physical)),
        weight=physical / physical.mean(),
        feature_name=list(FEATURE_NAMES),
    )


def _mean_ratio(model: LatencyModel, rows: Rows) -> float:
    return float(rows.latency_ms.sum() / model.predict(rows.features).sum())


def _offsets(model: LatencyModel, rows: Rows) -> dict[str, float]:
    """Return the smallest log error that covers each share of new rows (the conformal rank, at most the largest)."""
    errors = np.sort(np.log(rows.latency_ms / model.predict(rows.features)))
    ranks = {name: min(int(np.ceil(share * (len(errors) + 1))), len(errors)) for name, share in QUANTILES.items()}
    return {name: float(errors[rank - 1]) for name, rank in ranks.items()}
