"""To and from the arrays of the Open Bandit Pipeline (obp), for those who know it and for comparison with it.

obp has as many actions in every round and knows each by its number. Two things are therefore lost on the way there:
which instance a candidate is, as candidate j of one decision need not be that of the next, so obp's own regression
models (one-hot actions) mean nothing here; and that candidates are missing, as rounds are filled up with actions that
neither policy chooses. Values of estimators that take weights and predictions are the same on both sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.one_step import OneStepInput

__all__ = ["of_obp", "to_obp"]

Floats = NDArray[np.float64]


def to_obp(rows: OneStepInput, negate: bool = True) -> tuple[dict[str, Any], Floats, Floats | None]:
    """Return obp's ``bandit_feedback``, ``action_dist`` and ``estimated_rewards_by_reg_model``.

    Args:
        rows: the decisions, of n requests with m candidates at most; features become obp's context, flattened.
        negate: make the reward the negative cost, since obp looks for the highest; else the cost is the reward, so that
            estimates carry its sign.

    Returns:
        A dictionary of obp's names, and two arrays of shape (n, m, 1); None without a prediction.

    >>> log = LoggedDecisions(np.array([9.0, 7.0]), np.array([0, 2, 3]), np.array([1, 2]), np.array([0.5, 1.0]))
    >>> feedback, action_dist, _ = to_obp(OneStepInput(log, np.array([0.0, 1.0, 1.0])))
    >>> feedback["action"].tolist(), feedback["reward"].tolist(), action_dist[:, :, 0].tolist()
    ([1, 0], [-9.0, -7.0], [[0.0, 1.0], [1.0, 0.0]])
    """
    log, sign = rows.log, -1.0 if negate else 1.0
    n = log.decisions
    feedback: dict[str, Any] = {
        "n_rounds": n,
        "n_actions": int(log.counts.max()),
        "context": np.zeros((n, 1)) if rows.features is None else _dense(log, rows.features).reshape(n, -1),
        "action_context": None,
        "action": log.chosen - log.offsets[:-1],
        "position": None,
        "reward": sign * log.cost,
        "pscore": log.propensity,
        "pi_b": None if log.logging is None else _dense(log, log.logging)[:, :, None],
    }
    if log.logger is not None:
        feedback |= {"stratum_idx": log.logger, "n_strata": int(log.logger.max()) + 1}
    if rows.predicted is None:
        return feedback, _dense(log, rows.target)[:, :, None], None
    unused = np.isnan(rows.predicted) & (rows.target == 0)  # obp multiplies by 0, and NaN would stay
    unused[log.chosen] = False
    predicted = np.where(unused, 0.0, sign * rows.predicted)
    return feedback, _dense(log, rows.target)[:, :, None], _dense(log, predicted)[:, :, None]


def of_obp(
    feedback: Mapping[str, Any], action_dist: Floats, estimated_rewards: Floats | None = None, negate: bool = True
) -> OneStepInput:
    """Return the input of the estimators from obp's arrays; every action is a candidate of every round.

    Args:
        feedback: obp's ``bandit_feedback``, of one position (``len_list`` 1) with ``pscore``.
        action_dist: shape (n, m, 1).
        estimated_rewards: shape (n, m, 1), if there is a model.
        negate: the reward is a negative cost; else it is the cost.
    """
    if action_dist.ndim != 3 or action_dist.shape[2] != 1:
        raise DataError(f"action_dist has shape {action_dist.shape}; expected (rounds, actions, 1), one position")
    if feedback.get("pscore") is None:
        raise DataError("bandit_feedback has no pscore; expected the propensity of every action")
    n, m, _ = action_dist.shape
    sign = -1.0 if negate else 1.0
    logging, logger = feedback.get("pi_b"), feedback.get("stratum_idx")
    log = LoggedDecisions(
        cost=sign * np.asarray(feedback["reward"], dtype=np.float64),
        offsets=np.arange(n + 1) * m,
        chosen=np.arange(n) * m + np.asarray(feedback["action"]),
        propensity=np.asarray(feedback["pscore"], dtype=np.float64),
        logging=None if logging is None else np.asarray(logging)[:, :, 0].reshape(-1),
        logger=logger,
        instance=np.asarray(feedback["action"]),
    )
    predicted = None if estimated_rewards is None else sign * estimated_rewards.reshape(-1)
    return OneStepInput(log, action_dist.reshape(-1), predicted)


def _dense(log: LoggedDecisions, of_candidates: Floats) -> Floats:
    """Fill decisions up with zeros to as many candidates, shape (c, …) → (n, m, …)."""
    there = np.arange(log.counts.max()) < log.counts[:, None]
    dense = np.zeros((*there.shape, *of_candidates.shape[1:]))
    dense[there] = of_candidates
    return dense
