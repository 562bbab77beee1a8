"""Growing a `LatencyModel`, from nothing or on top of an earlier one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.models.baseline import fit_baseline
from lodestar.models.labels import labelled, right_in_the_mean, seen_by
from lodestar.models.latency import LatencyModel, require_inputs
from lodestar.models.parameters import Parameters
from lodestar.models.robust import mean_ratio
from lodestar.models.rows import Rows
from lodestar.models.slices import load_slice
from lodestar.models.uncertainty.censoring import Imputed, impute
from lodestar.models.uncertainty.heads import fit_heads

__all__ = ["MIN_ROWS", "Curve", "extend", "fit", "require_rows"]

Floats = NDArray[np.float64]

MIN_ROWS: Final = 50


@dataclass(slots=True)
class Curve:
    """Error of log(latency / baseline) after each round, of the training and the watched rows.

    It is the root of the mean square, where rows weigh in proportion to their baseline, as they do in the fit.
    """

    training: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)


def fit(
    rows: Rows, target: str, parameters: Parameters, seed: int, watch: Rows | None = None, heads: bool = True
) -> tuple[LatencyModel, Curve]:
    """Fit baseline, trees and quantile heads on the newest rows of the window.

    `watch` is scored each round, never learned from. Without `heads` the quantiles have the shape of the mean. The
    model is not calibrated: see `calibrate`.
    """
    window = rows.last(parameters.window_requests)
    require_rows(window, target, f"keeping the newest {len(window)}" if len(window) < len(rows) else "")
    labels, curve = _completed(window, target, parameters, seed), Curve()
    baseline = fit_baseline(window.features, np.exp(labels.drawn), target)
    data = labelled(window, labels.mean, baseline, parameters)
    measured = watch.only(~watch.censored) if watch else None
    watched = labelled(measured, np.log(measured.latency_ms), baseline, parameters) if measured else None
    booster, fitted = _train(data, parameters, seed, watched, curve)
    ratio = mean_ratio(np.exp(labels.drawn), baseline.predict(window.features) * np.exp(fitted))
    model = LatencyModel(target, parameters.features, baseline, booster, ratio)
    if not heads:
        return model, curve
    shared = data if labels.drawn is labels.mean else labelled(window, labels.drawn, baseline, parameters)
    return replace(model, heads=fit_heads(shared, parameters.lightgbm(seed))), curve


def extend(model: LatencyModel, rows: Rows, parameters: Parameters, seed: int) -> LatencyModel:
    """Add trees fitted to `rows` alone; the baseline and the trees so far stay as they are.

    The new trees see a new `Dataset` with bins of its own (bins taken over from the old one would hide loads beyond
    it). They learn what is left once the old model is set right in the mean: a change that is the same for all rows
    offers no split a gain, so LightGBM would stop at once; the mean ratio takes it up. The heads stay: their conformal
    correction follows the change.
    """
    require_inputs(model.booster, parameters.features)
    require_rows(rows, model.target)
    labels = seen_by(model, rows, seed)
    level = right_in_the_mean(model, rows.features, labels).mean_ratio
    data = labelled(rows, labels.mean - np.log(level), model.baseline, parameters)
    booster = lgb.train(parameters.mean(seed), data, parameters.update_rounds, init_model=model.booster)
    return right_in_the_mean(replace(model, booster=booster), rows.features, labels)


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


def _completed(rows: Rows, target: str, parameters: Parameters, seed: int) -> Imputed:
    """Return the logarithms of the latencies, with what lies beyond each lower bound in its place."""

    def predicted(labels: Floats) -> Floats:
        baseline = fit_baseline(rows.features, np.exp(labels), target)
        _, fitted = _train(labelled(rows, labels, baseline, parameters), parameters, seed)
        return np.asarray(np.log(baseline.predict(rows.features)) + fitted)

    return impute(np.log(rows.latency_ms), rows.censored, load_slice(rows.features), predicted, seed)


def _train(
    data: lgb.Dataset, parameters: Parameters, seed: int, watch: lgb.Dataset | None = None, curve: Curve | None = None
) -> tuple[lgb.Booster, Floats]:
    """Return the trees and what they make of the rows that they were grown on, (n,), which LightGBM keeps anyway."""
    watched = {"training": data} | ({} if watch is None else {"held_out": watch})
    history: dict[str, dict[str, list[float]]] = {}
    booster = lgb.train(
        {**parameters.mean(seed), "metric": "rmse"},
        data,
        parameters.rounds,
        valid_sets=list(watched.values()),
        valid_names=list(watched),
        callbacks=[lgb.record_evaluation(history)],
        keep_training_booster=True,
    )
    if curve is not None:
        curve.training, curve.held_out = (history.get(name, {}).get("rmse", []) for name in ("training", "held_out"))
    fitted = _fitted(booster)
    booster.model_from_string(booster.model_to_string())
    booster.free_dataset()
    return booster, fitted


def _fitted(booster: lgb.Booster) -> Floats:
    kept = []

    def keep(predicted: Floats, _: lgb.Dataset) -> list[Any]:
        kept.append(predicted.copy())
        return []

    booster.eval_train(keep)
    return kept[0]
