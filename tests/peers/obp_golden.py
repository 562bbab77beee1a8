"""What obp 0.5.7 says of one log, by every estimator we have in common: ``obp_golden.py OUT.npz``.

Runs in the peer's environment, by itself; it imports nothing of ours. All inputs are small whole numbers over a power
of two, so that they are exact and take little space; rewards are costs, which are positive, as latencies are.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from obp_library import obp
from sklearn.linear_model import LinearRegression

N, ACTIONS, LOGGERS = 2000, 8, 3
SHARES = 128  # probabilities are whole numbers of 128ths
FINE = 16  # costs and features are whole numbers of 16ths
TASTES = [(0.015, 0.0), (0.0, 0.3), (-0.06, 0.0)]  # how loggers weigh the expected cost and the speed
FOLDS = 4  # blocks of consecutive rounds, as our mrdr cross-fits

CLIPS = [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, float("inf")]
SHRINKAGES = [1.0, 10.0, 100.0, 1000.0, 10000.0]
SUB_GAUSSIAN = [0.003, 0.01, 0.03, 0.1, 0.3, 0.9]  # at 1, obp divides 0 by 0 where the policy never goes


def inputs() -> dict[str, np.ndarray]:
    """Draw the log: costs grow with the load of the chosen action, and the policy likes unloaded ones."""
    random = np.random.default_rng(8)
    load = random.integers(0, 12, size=(N, ACTIONS))
    prompt = random.integers(1, 64, size=N)
    speed = np.array([3, 4, 5, 6, 6, 7, 8, 9])
    expected = 2.0 * prompt[:, None] + 9.0 * load + 4.0 * speed
    greed = np.where(random.random((N, 1)) < 0.5, 2.0, 0.08)
    policy = _shares(-greed * expected, 0)
    loggers = np.stack([_shares(taste * expected + tilt * speed, 1) for taste, tilt in TASTES])
    logger = random.integers(0, LOGGERS, size=N)
    chosen = _draw(loggers[0], random)
    mixed_chosen = _draw(loggers[logger, np.arange(N)], random)
    noise = random.lognormal(0.0, 0.5, size=(N, ACTIONS))
    cost = np.rint(FINE * expected * noise).astype(np.uint16)
    predicted = np.rint(FINE * (0.4 * expected + 8.0 * random.standard_normal((N, ACTIONS)) + 20.0))
    return {
        "chosen": chosen.astype(np.uint8),
        "cost": cost[np.arange(N), chosen],
        "policy": policy.astype(np.uint8),
        "logging": loggers[0].astype(np.uint8),
        "predicted": predicted.astype(np.uint16),
        "context": np.column_stack([prompt, load.sum(1)]).astype(np.uint8),
        "cell": np.array([0, 0, 1, 1, 1, 2, 2, 3], dtype=np.uint8),
        "logger": logger.astype(np.uint8),
        "mixed_chosen": mixed_chosen.astype(np.uint8),
        "mixed_cost": cost[np.arange(N), mixed_chosen],
        "of_loggers": loggers[:, np.arange(N), mixed_chosen].astype(np.uint8),
    }


def _shares(score: np.ndarray, least: int) -> np.ndarray:
    """Turn scores into probabilities of whole 128ths, `least` or more; the likeliest takes what rounding leaves."""
    soft = np.exp(score - score.max(1, keepdims=True))
    shares = np.maximum(np.floor(SHARES * soft / soft.sum(1, keepdims=True)), least).astype(int)
    shares[np.arange(len(shares)), shares.argmax(1)] += SHARES - shares.sum(1)
    return shares


def _draw(shares: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return (np.cumsum(shares, axis=1) <= random.integers(0, SHARES, size=(len(shares), 1))).sum(1)


def logged(given: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the log by obp's names."""
    action = given["chosen"].astype(int)
    return {
        "reward": given["cost"] / FINE,
        "action": action,
        "pscore": given["logging"][np.arange(N), action] / SHARES,
        "action_dist": given["policy"][:, :, None] / SHARES,
        "estimated_rewards_by_reg_model": given["predicted"][:, :, None] / FINE,
    }


def estimated(given: dict[str, np.ndarray], log: dict[str, Any]) -> dict[str, float]:
    """Return obp's value of every estimator."""
    ope = obp.ope
    every = {
        "dm": ope.DirectMethod(),
        "ipw": ope.InverseProbabilityWeighting(),
        "ipw 4": ope.InverseProbabilityWeighting(lambda_=4.0),
        "snipw": ope.SelfNormalizedInverseProbabilityWeighting(),
        "dr": ope.DoublyRobust(),
        "dr 4": ope.DoublyRobust(lambda_=4.0),
        "sndr": ope.SelfNormalizedDoublyRobust(),
        "switch-dr 4": ope.SwitchDoublyRobust(lambda_=4.0),
        "dr-os 25": ope.DoublyRobustWithShrinkage(lambda_=25.0),
        "sg-ipw 0.1": ope.SubGaussianInverseProbabilityWeighting(lambda_=0.1),
        "sg-dr 0.1": ope.SubGaussianDoublyRobust(lambda_=0.1),
    }
    values = {name: float(each.estimate_policy_value(**log)) for name, each in every.items()}
    mrdr = log | {"estimated_rewards_by_reg_model": _mrdr_model(given, log)}
    values["mrdr"] = float(ope.DoublyRobust().estimate_policy_value(**mrdr))
    return values | {"mipw": _mipw(given, log)} | _of_loggers(given, log)


def tuned(log: dict[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Return obp's value of every estimator that it tunes by SLOPE, and the hyper-parameter that it picks."""
    ope = obp.ope
    # Copies of the lists, which tuners sort in place.
    tuners = {
        "ipw": ope.InverseProbabilityWeightingTuning(lambdas=list(CLIPS)),
        "dr": ope.DoublyRobustTuning(lambdas=list(CLIPS)),
        "switch-dr": ope.SwitchDoublyRobustTuning(lambdas=list(CLIPS)),
        "dr-os": ope.DoublyRobustWithShrinkageTuning(lambdas=list(SHRINKAGES)),
        "sg-ipw": ope.SubGaussianInverseProbabilityWeightingTuning(lambdas=list(SUB_GAUSSIAN)),
        "sg-dr": ope.SubGaussianDoublyRobustTuning(lambdas=list(SUB_GAUSSIAN)),
    }
    values = {f"{name} slope": float(tuner.estimate_policy_value(**log)) for name, tuner in tuners.items()}
    return values, {name: float(tuner.best_hyperparam) for name, tuner in tuners.items()}


def _mrdr_model(given: dict[str, np.ndarray], log: dict[str, Any]) -> np.ndarray:
    """Fit obp's regression model to all blocks but one, and predict that one, for each."""
    context, fold = given["context"] / FINE, np.arange(N) * FOLDS // N
    predicted = np.empty((N, ACTIONS, 1))
    for number in range(FOLDS):
        there, others = fold == number, fold != number
        model = obp.ope.RegressionModel(LinearRegression(), n_actions=ACTIONS, fitting_method="mrdr")
        rounds = {name: log[name][others] for name in ("action", "reward", "pscore", "action_dist")}
        model.fit(context=context[others], **rounds)
        predicted[there] = model.predict(context[there])
    return predicted


def _mipw(given: dict[str, np.ndarray], log: dict[str, Any]) -> float:
    cell = given["cell"].astype(int)
    return float(
        obp.ope.MarginalizedInverseProbabilityWeighting(n_actions=ACTIONS).estimate_policy_value(
            reward=log["reward"],
            action=log["action"],
            action_embed=cell[log["action"]][:, None],
            pi_b=given["logging"][:, :, None] / SHARES,
            action_dist=log["action_dist"],
            p_e_a=np.eye(cell.max() + 1)[cell][:, :, None],
        )
    )


def _of_loggers(given: dict[str, np.ndarray], log: dict[str, Any]) -> dict[str, float]:
    """Value the policy on the log that mixes three loggers."""
    logger, of_loggers = given["logger"].astype(int), given["of_loggers"] / SHARES
    mixed = log | {
        "reward": given["mixed_cost"] / FINE,
        "action": given["mixed_chosen"].astype(int),
        "pscore": of_loggers[logger, np.arange(N)],
        "pscore_avg": np.bincount(logger) / N @ of_loggers,
        "stratum_idx": logger,
    }
    ope = obp.ope
    every = {
        "naive ipw": ope.MultiLoggersNaiveInverseProbabilityWeighting(),
        "naive dr": ope.MultiLoggersNaiveDoublyRobust(),
        "balanced ipw": ope.MultiLoggersBalancedInverseProbabilityWeighting(),
        "balanced dr": ope.MultiLoggersBalancedDoublyRobust(),
        "weighted ipw": ope.MultiLoggersWeightedInverseProbabilityWeighting(),
        "weighted dr": ope.MultiLoggersWeightedDoublyRobust(),
    }
    return {name: float(each.estimate_policy_value(**mixed)) for name, each in every.items()}


def main() -> None:
    """Write inputs, values and picks into one file."""
    given = inputs()
    log = logged(given)
    values, picks = tuned(log)
    grids = {f"grid {name}": np.array(CLIPS) for name in ("ipw", "dr", "switch-dr")}
    grids |= {f"grid {name}": np.array(SUB_GAUSSIAN) for name in ("sg-ipw", "sg-dr")}
    outputs = {f"value {name}": value for name, value in (estimated(given, log) | values).items()}
    picked = {f"pick {name}": pick for name, pick in picks.items()}
    np.savez_compressed(sys.argv[1], **given, **outputs, **picked, **grids, **{"grid dr-os": np.array(SHRINKAGES)})


if __name__ == "__main__":
    main()
