"""Logs whose one-step value is known: three decisions to work by hand, and a world with queues that drift."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.one_step import OneStepInput

__all__ = ["changed", "population_value", "probabilities", "three_decisions", "world"]

Floats = NDArray[np.float64]


def three_decisions() -> OneStepInput:
    """Weights are 2, 2 and 1, residuals −10, 20 and 10; the third request had one candidate only."""
    log = LoggedDecisions(
        cost=np.array([100.0, 300.0, 200.0]),
        offsets=np.array([0, 2, 4, 5]),
        chosen=np.array([0, 3, 4]),
        propensity=np.array([0.5, 0.25, 1.0]),
        logging=np.array([0.5, 0.5, 0.75, 0.25, 1.0]),
    )
    return OneStepInput(
        log,
        target=np.array([1.0, 0.0, 0.5, 0.5, 1.0]),
        predicted=np.array([110.0, 210.0, 120.0, 280.0, 190.0]),
        features=np.array([[0.0], [1.0], [0.0], [1.0], [0.0]]),
        embedding=np.array([0, 0, 0, 1, 0]),
    )


def probabilities(preference: Floats, temperature: float) -> Floats:
    raised = np.exp(preference / temperature)
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def world(seed: int, n: int = 800, m: int = 5) -> tuple[OneStepInput, float]:
    """A log whose true one-step value is known, with costs that drift together like a queue's."""
    random = np.random.default_rng(seed)
    load = np.repeat(random.gamma(2.0, 1.0, n // 20), 20)[:, None]
    expected = 100 * (1 + load * np.linspace(0.5, 1.5, m))
    behaviour = probabilities(random.normal(size=(n, m)), 1.0)
    target = probabilities(-expected, 60.0)
    column = (random.random((n, 1)) > behaviour.cumsum(axis=1)[:, :-1]).sum(axis=1)
    chosen = np.arange(n) * m + column
    cost = expected.reshape(-1)[chosen] + random.normal(0, 20, n)
    logging = behaviour.reshape(-1)
    log = LoggedDecisions(cost, np.arange(n + 1) * m, chosen, logging[chosen], logging)
    wrong_model = expected * 1.2 - 30
    features = np.column_stack([np.tile(np.linspace(0.5, 1.5, m), n), np.repeat(load[:, 0], m)])
    rows = OneStepInput(log, target.reshape(-1), wrong_model.reshape(-1), features, np.tile(np.arange(m), n))
    return rows, float(np.sum(target * expected, axis=1).mean())


@lru_cache
def population_value() -> float:
    return float(np.mean([world(seed)[1] for seed in range(10_000, 10_400)]))


def changed(rows: OneStepInput, **fields: object) -> OneStepInput:
    """Return the input with other fields of the log, such as its cost."""
    return replace(rows, log=replace(rows.log, **fields))  # type: ignore[arg-type]
