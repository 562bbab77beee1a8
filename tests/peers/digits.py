"""obp's table of the digits, by obp and by us: ``python tests/peers/digits.py [--fresh]``.

How far each estimator's value is from the truth, relative to it (relative-ee): the mean over 30 runs and, in brackets,
the standard deviation. Read from ``golden/digits.npz``, or with ``--fresh`` from a new run of the real library, which
takes a minute. The settings are in ``obp_digits.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from lodestar.pipeline.estimation.estimators.dm import dm
from lodestar.pipeline.estimation.estimators.dr import dr
from lodestar.pipeline.estimation.estimators.dr_os import dr_os
from lodestar.pipeline.estimation.estimators.ipw import ipw
from lodestar.pipeline.estimation.estimators.sndr import sndr
from lodestar.pipeline.estimation.estimators.snipw import snipw
from lodestar.pipeline.estimation.estimators.switch_dr import switch_dr
from lodestar.pipeline.estimation.logged import LoggedDecisions
from lodestar.pipeline.estimation.one_step import OneStepInput
from lodestar.pipeline.estimation.slope import slope

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from peers.golden_files import Golden, committed, made

__all__ = ["LAMBDAS", "PUBLISHED", "relative_errors", "rows_of", "table", "tuned_lambdas", "values"]

ACTIONS = 10
FINE = 1024  # of obp_digits.py
POLICY = (0.9 + 0.1 / ACTIONS, 0.1 / ACTIONS)  # probability of the preferred action and of any other
LOGGING = (0.4 + 0.6 / ACTIONS, 0.6 / ACTIONS)
LAMBDAS = (10, 50, 100, 500, 1000, 5000, 10000, float("inf"))

#: Mean and standard deviation in the README of obp's ``examples/multiclass``.
PUBLISHED = {
    "dm": (0.436541, 0.017629),
    "ipw": (0.030288, 0.024506),
    "snipw": (0.022764, 0.017917),
    "dr": (0.016156, 0.012679),
    "sndr": (0.022082, 0.016865),
    "switch-dr": (0.034657, 0.018575),
    "dr-os": (0.015868, 0.012537),
}


def rows_of(golden: Golden, run: int) -> OneStepInput:
    """Return the rounds of a run: two or three candidates each, the preferred action, the logged one, and all others.

    The reward takes the place of the cost; no estimator here minds which of the two is better.
    """
    shared = golden["shared"][run]
    others = ACTIONS - 2 + shared  # as many actions as the last candidate stands for
    candidate = np.column_stack([np.ones_like(shared), ~shared, np.ones_like(shared)])
    log = LoggedDecisions.of_padded(
        cost=golden["reward"][run].astype(np.float64),
        candidate=candidate,
        column=np.where(shared, 0, 1),
        propensity=np.where(golden["sure"][run], *LOGGING),
    )
    each = np.ones_like(others)
    target = np.column_stack([POLICY[0] * each, POLICY[1] * each, POLICY[1] * others])
    predicted = (
        np.column_stack([golden["preferred"][run], golden["logged"][run], golden["others"][run] / others]) / FINE
    )
    return OneStepInput(log, target[candidate], predicted[candidate])


def tuned_lambdas(rows: OneStepInput) -> dict[str, float]:
    """Return the hyper-parameters that SLOPE picks, every round by itself, as obp does."""
    return {
        "switch-dr": slope(lambda each: switch_dr(rows, each), LAMBDAS).lambda_,
        "dr-os": slope(lambda each: dr_os(rows, each), LAMBDAS).lambda_,
    }


def values(golden: Golden) -> np.ndarray:
    """Return our value of every run and estimator, in the order of `PUBLISHED`, shape (runs, 7).

    As in obp's table the hyper-parameters are those that the first run picks: obp's tuners keep what they picked first.
    Here every run by itself would pick the same.
    """
    picked = tuned_lambdas(rows_of(golden, 0))
    every = [rows_of(golden, run) for run in range(len(golden["truth"]))]
    return np.array(
        [
            [each(rows).value for each in (dm, ipw, snipw, dr, sndr)]
            + [switch_dr(rows, picked["switch-dr"]).value, dr_os(rows, picked["dr-os"]).value]
            for rows in every
        ]
    )


def relative_errors(found: np.ndarray, golden: Golden) -> np.ndarray:
    """Return |value − truth| / truth of every run and estimator."""
    truth = golden["truth"][:, None]
    return np.abs(found - truth) / truth


def table(errors: np.ndarray) -> np.ndarray:
    """Return mean and standard deviation over the runs, shape (2, estimators)."""
    return np.stack([errors.mean(0), errors.std(0, ddof=1)])


def main() -> None:
    """Print obp's published table, obp's own here, and ours, and how far the last two are apart."""
    golden = made("digits") if "--fresh" in sys.argv else committed("digits")
    ours, theirs = values(golden), golden["values"]
    shown = {
        "published": np.array(list(PUBLISHED.values())).T,
        "obp here": table(relative_errors(theirs, golden)),
        "ours": table(relative_errors(ours, golden)),
    }
    print("| relative-ee mean (sd) | " + " | ".join(PUBLISHED) + " |")
    print("|---" * (len(PUBLISHED) + 1) + "|")
    for name, (mean, sd) in shown.items():
        print(f"| {name} | " + " | ".join(f"{m:.6f} ({s:.6f})" for m, s in zip(mean, sd, strict=True)) + " |")
    off = shown["ours"] / shown["published"] - 1
    print("| ours / published − 1 | " + " | ".join(f"{m:+.1%} ({s:+.1%})" for m, s in off.T) + " |")
    print("| largest difference of a value from obp's | ", end="")
    print(" | ".join(f"{each:.0e}" for each in np.abs(ours - theirs).max(0)) + " |")


if __name__ == "__main__":
    main()
