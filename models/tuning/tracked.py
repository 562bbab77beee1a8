"""A search as an MLflow run: its trials as a table, what it found as numbers, and figures to look at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import mlflow
import optuna
from optuna.trial import TrialState

from lodestar.models.tuning.finalists import Finalist
from lodestar.models.tuning.journal import trials_of
from lodestar.models.tuning.search import STOPPED, finished, measured_in_full

__all__ = ["importances", "log_search", "study_page"]

_FEWEST: Final = 4  # trials from which on their parameters can be told to matter


def log_search(study: optuna.Study, found: Sequence[Finalist], parameters: dict[str, Any]) -> None:
    """Log a finished study into the open run, in few calls: one a metric would cost milliseconds each."""
    mlflow.log_params({f"best.{name}": value for name, value in parameters.items()})
    metrics = {"best_value": measured_in_full(study)[0].values[0], "trials": float(len(finished(study)))}
    for finalist in found:
        name = "defaults" if finalist.is_default else f"trial_{finalist.number}"
        metrics |= {f"again.{name}": finalist.mean, f"again.{name}.seed_sd": finalist.seed_sd}
    mlflow.log_metrics(metrics | {f"importance.{name}": share for name, share in importances(study).items()})
    mlflow.log_text(json.dumps(_table(study), indent=2), "trials.json")
    mlflow.log_text(study_page(study), "study.html")


def importances(study: optuna.Study) -> dict[str, float]:
    """Return how much each choice tells good trials from others (PED-ANOVA), 1 in all; empty for few trials."""
    complete = trials_of(study, TrialState.COMPLETE)
    if len(complete) < _FEWEST or len({trial.value for trial in complete}) == 1:
        return {}
    found: dict[str, float] = optuna.importance.get_param_importances(study)
    return found


def study_page(study: optuna.Study) -> str:
    """Draw history, choices and importances as one page that needs no other file."""
    draw = optuna.visualization
    figures = [draw.plot_optimization_history(study), draw.plot_slice(study), draw.plot_parallel_coordinate(study)]
    if importances(study):
        figures.append(draw.plot_param_importances(study))
    parts = [figure.to_html(full_html=False, include_plotlyjs=not at) for at, figure in enumerate(figures)]
    heading = "<!doctype html><meta charset=utf-8><title>Search</title>"
    return (
        heading
        + "<p>The value of a stopped trial is an estimate: the best one's plus the mean difference.</p>"
        + ("".join(parts))
    )


def _table(study: optuna.Study) -> list[dict[str, Any]]:
    return [
        {
            "number": trial.number,
            "value": trial.value,
            "state": trial.state.name.lower(),
            STOPPED: trial.user_attrs.get(STOPPED),
            "decision_us": trial.user_attrs.get("decision_us"),
            **trial.params,
            "blocks": trial.intermediate_values,
        }
        for trial in finished(study)
    ]
