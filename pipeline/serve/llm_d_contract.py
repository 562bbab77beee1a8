"""What the routes of llm-d's latency predictor need of the server, and which number of a model they answer with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from lodestar.data.errors import ConfigError
from lodestar.data.schema import TPOT_MS, TTFT_MS
from lodestar.models.latency import QUANTILES
from lodestar.models.online.brain import Brain
from lodestar.models.online.finished import Finished
from lodestar.models.serving import TargetScorer
from lodestar.pipeline.serve.llm_d_window import LlmDWindow

__all__ = ["MODEL_TYPE", "ModelText", "Objective", "ServesLlmD", "iso", "ready", "scorer_for", "served", "target_of"]

#: What llm-d's client knows our kind of model as: it then asks over HTTP and computes nothing itself.
MODEL_TYPE: Final = "lightgbm"
_TARGETS: Final = {"ttft": TTFT_MS, "tpot": TPOT_MS}


@dataclass(frozen=True, slots=True)
class ModelText:
    """One model as text, as `LatencyModel.to_dict` and `LatencyModel.texts` return it and an artifact holds it.

    Attributes:
        values: all but the trees.
        trees: '' → the trees of the mean, quantile → those of its head, as LightGBM writes them.
    """

    values: Mapping[str, Any]
    trees: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Objective:
    """Which number of a prediction llm-d gets.

    Attributes:
        type: 'mean' or 'quantile'.
        quantile: share of requests that stay below it; told to the client in both cases.
    """

    type: str = "mean"
    quantile: float = 0.9

    def __post_init__(self) -> None:
        if self.type not in ("mean", "quantile"):
            raise ConfigError(f"objective type {self.type!r} is not known; expected 'mean' or 'quantile'. Name one")
        if self.quantile not in QUANTILES.values():
            served = ", ".join(str(share) for share in QUANTILES.values())
            raise ConfigError(
                f"quantile {self.quantile}: the models are calibrated for {served} only. Choose one of these"
            )

    @property
    def head(self) -> str | None:
        """Name the quantile, or None for the mean.

        >>> Objective("quantile", 0.99).head
        'p99'
        """
        if self.type == "mean":
            return None
        return next(name for name, share in QUANTILES.items() if share == self.quantile)


class ServesLlmD(Protocol):
    """The server as these routes see it."""

    @property
    def brain(self) -> Brain | None:
        """What predicts now; None before there is a trained model."""

    @property
    def loaded_at_s(self) -> float | None:
        """Say when `brain` came into use, in Unix time."""

    @property
    def objective(self) -> Objective:
        """Which number llm-d gets."""

    @property
    def learning(self) -> bool:
        """Whether `learn` changes the model."""

    @property
    def llm_d(self) -> LlmDWindow:
        """What llm-d sent last, for its pages of status."""

    def model_texts(self) -> Mapping[str, ModelText]:
        """Return the models in use: target → text; empty before there is one."""

    def learn(self, rows: Finished) -> None:
        """Take finished requests to learn from; it is called from any thread, and only if `learning`."""

    def forget(self) -> None:
        """Drop what was kept to learn from."""

    def reload(self) -> str | None:
        """Read the artifact again; return why the old one stays in use, or None."""


def scorer_for(brain: Brain | None, target: str, objective: Objective) -> TargetScorer | None:
    """Return what answers for a target; None where there is no model for all kinds, or none with this quantile.

    A model refitted without calibration has its P50 for every quantile: that is no P90 to answer with.
    """
    scorer = None if brain is None else brain.decider.targets.get(target)
    if scorer is None or objective.head in (None, "p50"):
        return scorer
    at = list(scorer.shapes).index(objective.head)
    told_apart = scorer.shapes[objective.head] in scorer.heads or bool(scorer.offsets[:, at].any())
    return scorer if told_apart else None


def ready(serving: ServesLlmD) -> Brain | None:
    """Return what predicts TTFT as the objective asks for, or None as long as nothing trained does."""
    brain = serving.brain
    return brain if scorer_for(brain, TTFT_MS, serving.objective) is not None else None


def served(serving: ServesLlmD) -> dict[str, Any]:
    """Return what every answer says of the model."""
    objective = serving.objective
    return {"model_type": MODEL_TYPE, "objective_type": objective.type, "quantile": objective.quantile}


def target_of(name: str) -> str | None:
    """Return our target of 'ttft' or 'tpot', None of anything else.

    >>> target_of("ttft")
    'ttft_ms'
    """
    return _TARGETS.get(name)


def iso(at_s: float | None) -> str | None:
    """Write Unix time as llm-d's servers and Go's `time.Time` do; None where it is not known.

    >>> iso(1_700_000_000.5)
    '2023-11-14T22:13:20.500000Z'
    """
    return (
        None
        if at_s is None or not math.isfinite(at_s)
        else datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")
    )
