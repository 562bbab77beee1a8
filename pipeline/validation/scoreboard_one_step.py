"""The queueing world's log before the one-step estimators: what each says of each policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.pipeline.estimation.embedding import cells
from lodestar.pipeline.estimation.estimate import estimate
from lodestar.pipeline.estimation.estimators import estimators
from lodestar.pipeline.estimation.least_squares import linear_costs
from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.one_step import OneStepInput
from lodestar.pipeline.validation.worlds.queueing import Run, Traffic, World
from lodestar.pipeline.validation.worlds.queueing_log import as_log
from lodestar.pipeline.validation.worlds.queueing_truth import one_step_truth, warm

__all__ = ["Decisions", "decisions_of", "one_step_of"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Decisions:
    """The decisions of a log that count, with what estimators may know of them and what they may not.

    Attributes:
        world: that was logged.
        traffic: its requests.
        run: its states.
        log: of the decisions after the warm-up.
        predicted: TTFT of every candidate by a model of other blocks of time, in ms, shape (c,).
        features: of every candidate, shape (c, k).
        embedding: cell of every candidate, shape (c,).
    """

    world: World
    traffic: Traffic
    run: Run
    log: LoggedDecisions
    predicted: Floats
    features: Floats
    embedding: Ints

    def rows(self, policy: str) -> OneStepInput:
        """Return the input of the estimators for a policy."""
        target = self.world.probabilities(self.traffic, self.run, policy)[warm(len(self.run.chosen))].ravel()
        return OneStepInput(self.log, target, self.predicted, self.features, self.embedding)


def decisions_of(world: World, traffic: Traffic, run: Run) -> Decisions:
    """Lay out the log of a run; the features are what `as_log` logs, over the speeds that the router was told."""
    logged, counted = as_log(world, traffic, run), warm(len(run.chosen))
    known = {name: values[counted] for name, values in logged.snapshot.items()}
    speed = np.broadcast_to(np.array(world.weight), known["hit_ratio"].shape)
    uncached = (1 - known["hit_ratio"]) * traffic.prompt_tokens[counted, None]
    work = (
        uncached,
        known["prefill_tokens"],
        known["inflight_requests"],
        known["running_requests"],
        np.ones_like(speed),
    )
    features = np.stack([each / speed for each in work], axis=2).reshape(-1, len(work))
    log = LoggedDecisions.of_padded(
        run.ttft_ms[counted],
        logged.candidate[counted],
        run.chosen[counted],
        logged.propensity[counted],
        run.probability[counted],
    )
    hardware = np.broadcast_to(np.arange(speed.shape[1]) // 2, speed.shape)  # two servers of about one speed
    embedding = cells(known["hit_ratio"].ravel(), known["inflight_requests"].ravel(), hardware.ravel())
    return Decisions(world, traffic, run, log, linear_costs(log, features), features, embedding)


def one_step_of(decisions: Decisions, policy: str) -> dict[str, Any]:
    """Return the one-step truth, and every estimator's value, its error relative to that, and whether it is covered.

    Covered: within the 95 % interval that `estimate` prints.
    """
    truth = one_step_truth(decisions.world, decisions.traffic, decisions.run, policy)
    rows = decisions.rows(policy)
    found: dict[str, dict[str, Any]] = {}
    for name in estimators():
        try:
            said = estimate(rows, policy, name)
        except DataError as error:
            found[name] = {"value_ms": None, "note": str(error)}
            continue
        found[name] = {
            "value_ms": said.value_ms,
            "relative_error": said.value_ms / truth - 1,
            "se_ms": said.se_ms,
            "covered": said.ci95_ms[0] <= truth <= said.ci95_ms[1],
        }
    return {"e1_truth_ms": truth, "estimators": found}
