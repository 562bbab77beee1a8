"""Estimates from a log that several routers made: each decision by its own propensity, or by the mean of them all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.data.log import RequestLog, Workload
from lodestar.pipeline.estimation.estimate import estimate
from lodestar.pipeline.estimation.estimators import Estimator
from lodestar.pipeline.estimation.estimators.dr import dr
from lodestar.pipeline.estimation.estimators.snipw import snipw
from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.loggers import balanced, stratified, weighted_dr, weighted_snipw
from lodestar.pipeline.estimation.one_step import OneStepInput, Valued
from lodestar.pipeline.replay.decisions import score_decisions
from lodestar.pipeline.replay.estimates.logged_inputs import LoggedInputs
from lodestar.pipeline.replay.logged_policy import named_policy
from lodestar.pipeline.replay.routing.contract import Fleet

__all__ = ["logger_probabilities", "mixed_estimates"]

Floats = NDArray[np.float64]

_BALANCED: Final[Mapping[str, Estimator]] = {"balanced-snipw": snipw, "balanced-dr": dr}
_WEIGHTED: Final[Mapping[str, Estimator]] = {"weighted-snipw": weighted_snipw, "weighted-dr": weighted_dr}


def logger_probabilities(
    inputs: LoggedInputs, log: RequestLog, workload: Workload, fleet: Fleet
) -> tuple[Floats | None, str | None]:
    """Return the probability that each router of the log would have made each choice, shape (loggers, n), or why not.

    A router is asked by the name that it has in the log, where Lodestar has a policy of that name.
    """
    found: list[Floats] = []
    for name in log.loggers:
        policy = named_policy(name, len(log.instances))
        if policy is None:
            return None, f"no balanced estimates: {name} of the log is no policy that is known here"
        scored = score_decisions(policy, log, workload, inputs.snapshot, fleet)
        chosen = scored.probability[np.arange(len(log)), log.chosen][inputs.rows]
        if np.isnan(chosen).any():
            return None, f"no balanced estimates: {name} cannot be asked: {'; '.join(scored.not_scored)}"
        if (differ := _differ(chosen, inputs.decisions, len(found))) > 0:
            return None, (
                f"no balanced estimates: {name}, asked again, gives {differ:.0%} of its own choices another "
                "probability than it logged"
            )
        found.append(chosen)
    return np.stack(found), None


def _differ(probability: Floats, decisions: LoggedDecisions | None, number: int) -> float:
    """Return the share of a router's own choices whose propensity is not what it gives them when it is asked again."""
    assert decisions is not None
    own = decisions.logger == number
    return 1 - float(np.isclose(probability[own], decisions.propensity[own], rtol=1e-6, atol=1e-12).mean())


def mixed_estimates(
    rows: OneStepInput, policy: str, block: int, probabilities: Floats | None, same_requests: bool = False
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the estimates that know of several routers, and why there are none of some."""
    found, failed = [], []
    every: dict[str, Estimator] = dict(_WEIGHTED)
    if probabilities is not None:
        every |= {name: _of_all(by, probabilities) for name, by in _BALANCED.items()}
    for name, by in every.items():
        try:
            found.append(estimate(rows, policy, name, block, by, same_requests).to_dict())
        except DataError as error:
            failed.append(f"no {name} of {policy}: {error}")
    return found, failed


def _of_all(by: Estimator, probabilities: Floats) -> Estimator:
    def estimator(rows: OneStepInput) -> Valued:
        return stratified(by(balanced(rows, probabilities)), rows.log)

    return estimator
