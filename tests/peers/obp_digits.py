"""obp's own experiment on scikit-learn's digits, its example of multi-class data: ``obp_digits.py OUT.npz [RUNS]``.

Runs in the peer's environment, by itself; it imports nothing of ours. The settings are those of the table in the README
of obp's ``examples/multiclass`` at 8cbd5fa: 30 runs, logging by logistic regression with alpha_b 0.4, evaluation of a
random forest with alpha_e 0.9, and the reward predicted by gradient-boosted trees, cross-fitted over 3 folds. As in the
example, the same tuner values every run, so each keeps the hyper-parameter that it picked in the first.

Written for every run: obp's values and the truth, and of every round whether the logged action is the one that the
evaluated policy prefers, whether it is the one that the logging policy prefers, the reward, and what is predicted for
the preferred action, the logged one, and all others together. The values depend on no more: the others have the same
probability each. Predictions are rounded to `FINE`-ths before obp reads them, which takes a third of the space.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from obp_library import obp
from sklearn.datasets import load_digits
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression

RUNS = 30
SEED = 12345
ALPHA_B, ALPHA_E = 0.4, 0.9
FINE = 1024
LAMBDAS = [10, 50, 100, 500, 1000, 5000, 10000, np.inf]

LOGGING = LogisticRegression(max_iter=10000, C=100, random_state=SEED)
EVALUATED = RandomForestClassifier(n_estimators=30, max_depth=5, min_samples_leaf=10, random_state=SEED)
REWARD = GradientBoostingClassifier(
    n_estimators=30, learning_rate=0.01, max_depth=5, min_samples_leaf=10, random_state=SEED
)


def estimators() -> dict[str, Any]:
    """Return the estimators of the table, which are used for all runs."""
    ope = obp.ope
    every = [
        ope.DirectMethod(),
        ope.InverseProbabilityWeighting(),
        ope.SelfNormalizedInverseProbabilityWeighting(),
        ope.DoublyRobust(),
        ope.SelfNormalizedDoublyRobust(),
        ope.SwitchDoublyRobustTuning(lambdas=LAMBDAS),
        ope.DoublyRobustWithShrinkageTuning(lambdas=LAMBDAS),
    ]
    return {each.estimator_name: each for each in every}


def run(number: int, dataset: Any, every: dict[str, Any]) -> dict[str, np.ndarray]:
    """Split the digits anew, log, evaluate, and tell what went in and what came out."""
    dataset.split_train_eval(eval_size=0.7, random_state=number)
    feedback = dataset.obtain_batch_bandit_feedback(random_state=number)
    policy = dataset.obtain_action_dist_by_eval_policy(base_classifier_e=EVALUATED, alpha_e=ALPHA_E)
    truth = dataset.calc_ground_truth_policy_value(action_dist=policy)
    model = obp.ope.RegressionModel(n_actions=dataset.n_actions, base_model=REWARD)
    logged = {name: feedback[name] for name in ("context", "action", "reward")}
    predicted = np.rint(FINE * model.fit_predict(**logged, n_folds=3, random_state=SEED))
    evaluation = obp.ope.OffPolicyEvaluation(feedback, list(every.values()))
    values = evaluation.estimate_policy_values(policy, estimated_rewards_by_reg_model=predicted / FINE)
    preferred, action = policy[:, :, 0].argmax(1), feedback["action"]
    n, steps = np.arange(feedback["n_rounds"]), predicted[:, :, 0].astype(np.uint16)
    shared, of_preferred, of_logged = action == preferred, steps[n, preferred], steps[n, action]
    return {
        "truth": truth,
        "values": np.array([values[name] for name in every]),
        "shared": shared,
        "sure": feedback["pscore"] > 0.5 * ALPHA_B,
        "reward": feedback["reward"].astype(bool),
        "preferred": of_preferred,
        "logged": of_logged,
        "others": steps.sum(1, dtype=np.uint16) - of_preferred - of_logged * ~shared,
    }


def main() -> None:
    """Write all runs, or as many of the first as are asked for, into one file."""
    x, y = load_digits(return_X_y=True)
    dataset = obp.dataset.MultiClassToBanditReduction(x, y, base_classifier_b=LOGGING, alpha_b=ALPHA_B)
    every = estimators()
    wanted = int(sys.argv[2]) if len(sys.argv) > 2 else RUNS
    runs = [run(number, dataset, every) for number in range(wanted)]
    picks = {f"pick {name}": float(each.best_hyperparam) for name, each in every.items() if hasattr(each, "lambdas")}
    columns = {name: np.stack([each[name] for each in runs]) for name in runs[0]}
    np.savez_compressed(sys.argv[1], names=list(every), **picks, **columns)


if __name__ == "__main__":
    main()
