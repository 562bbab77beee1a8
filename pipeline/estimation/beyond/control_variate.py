"""The simulator as a model of one step, corrected by what was measured.

Estimand: *one-step, logged states*; NOT the policy's performance. The correction takes out what the simulator gets
wrong in a single step from logged states. What it gets wrong in where a policy leads the system stays in the replay.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lodestar.pipeline.estimation.estimators.dr import dr
from lodestar.pipeline.estimation.one_step import ESTIMAND, OneStepInput, Valued, direct_values, weights

__all__ = ["ControlVariate", "control_variate"]


@dataclass(frozen=True, slots=True)
class ControlVariate:
    """A one-step value by the simulator, and what the log corrects of it.

    Attributes:
        simulated: the simulator's value alone, in the unit of the cost.
        correction: what the weighted residuals add; far from 0, the simulator is wrong where the policy goes.
        valued: their sum, with its influence.
        explained: by how much the variance of a decision's part is below that of the weighted costs alone, as a share
            of it; below 0 the simulator adds noise.
    """

    simulated: float
    correction: float
    valued: Valued
    explained: float

    def to_dict(self) -> dict[str, object]:
        """Return the numbers with the estimand beside them, ready for JSON."""
        return {
            "estimand": ESTIMAND,
            "value": self.valued.value,
            "simulated": self.simulated,
            "correction": self.correction,
            "explained": self.explained,
            "notes": list(self.valued.notes),
        }


def control_variate(rows: OneStepInput) -> ControlVariate:
    """Estimate V = 1/n Σ y_sim(xᵢ, π) + 1/n Σ wᵢ (yᵢ − y_sim(xᵢ, aᵢ)), y_sim a simulator started from xᵢ.

    It is dr with the simulator as the model: unbiased for any simulator that knows nothing of the measured costs of the
    same requests, where the propensities are right. A simulator that was calibrated on this very log is fitted to them
    by a handful of numbers, which matters little for thousands of requests.
    Reference: Dudík, Langford and Li 2011; the survey literature's difference estimator (Särndal et al. 1992, §6.3).

    Args:
        rows: logged decisions, the policy, and as `predicted` what the simulator gives every candidate, in the unit of
            the cost; see `simulated_one_step`.

    >>> from lodestar.pipeline.estimation.logged import LoggedDecisions
    >>> log = LoggedDecisions(np.array([3.0, 7.0]), np.array([0, 2, 4]), np.array([0, 3]), np.full(2, 0.5))
    >>> simulated = np.array([2.0, 5.0, 2.0, 5.0])
    >>> found = control_variate(OneStepInput(log, np.array([1.0, 0.0, 1.0, 0.0]), simulated))
    >>> found.simulated, found.correction, found.valued.value
    (2.0, 1.0, 3.0)
    """
    valued = dr(rows)
    simulated = float(direct_values(rows).mean())
    plain, left = float(np.var(weights(rows) * rows.log.cost)), float(np.var(valued.influence))
    notes = ("one step from logged states: what the policy's own queues and caches would be is not in it",)
    return ControlVariate(
        simulated, valued.value - simulated, Valued(valued.value, valued.influence, None, notes),
        1.0 - left / plain if plain > 0 else 0.0,
    )  # fmt: skip
