"""What vw-estimators 0.2.2 says of two logs, one with moderate and one with large weights: ``vw_golden.py OUT.npz``.

Runs in the peer's environment, by itself; it imports nothing of ours. All inputs are small whole numbers over a power
of two, so that they are exact and take little space; rewards are costs, which are positive, as latencies are.
"""

from __future__ import annotations

import sys

import numpy as np
from estimators.bandits import cressieread, cs, ips, snips

N = 1000
SHARES = 128  # probabilities are whole numbers of 128ths
FINE = 16  # costs are whole numbers of 16ths
LEAST, LARGEST = 0.0, 400.0  # what a cost may be
LARGEST_WEIGHT = 128.0
ALPHAS = (0.1, 0.05, 0.01)
LOOKS = (10, 50, 200, 1000)  # after how many decisions a sequence is read


def logs() -> dict[str, dict[str, np.ndarray]]:
    """Draw both logs: probability of the chosen one of two actions by the logging policy and the policy; its cost."""
    random = np.random.default_rng(22)
    firsts = {
        "moderate": (random.integers(56, 73, size=N), random.integers(56, 73, size=N)),
        "large": (np.rint(2 ** random.uniform(0, 6, size=N)), np.rint(2 ** random.uniform(0, 6.9, size=N))),
    }
    drawn = {}
    for name, probabilities in firsts.items():
        first = random.integers(0, SHARES, size=N) < probabilities[0]
        logged, policy = (np.where(first, each, SHARES - each).astype(np.uint8) for each in probabilities)
        cost = np.minimum(random.lognormal(np.where(first, 5.0, 4.5), 0.4), LARGEST)
        drawn[name] = {"logged": logged, "policy": policy, "cost": np.rint(FINE * cost).astype(np.uint16)}
    return drawn


def said(log: dict[str, np.ndarray]) -> dict[str, object]:
    """Return every value, and every interval at every level, of one log."""
    rows = np.column_stack([log["logged"] / SHARES, log["cost"] / FINE, log["policy"] / SHARES]).tolist()
    bounds = {"rmin": LEAST, "rmax": LARGEST}
    points = {
        "ips": ips.Estimator(),
        "snips": snips.Estimator(),
        "cressie-read": cressieread.Estimator(),
        "cressie-read bounded": cressieread.Estimator(wmax=LARGEST_WEIGHT),
    }
    intervals = {
        "cressie-read": cressieread.Interval(**bounds),
        "cressie-read bounded": cressieread.Interval(wmax=LARGEST_WEIGHT, **bounds),
    }
    sequence = cs.Interval(**bounds)
    found: dict[str, object] = {}
    for count, row in enumerate(rows, 1):
        for each in (*points.values(), *intervals.values(), sequence):
            each.add_example(*row)
        if count in LOOKS:
            found |= {f"sequence {count} {alpha}": sequence.get(alpha) for alpha in ALPHAS}
    found |= {f"value {name}": each.get() for name, each in points.items()}
    found |= {f"interval {name} {alpha}": each.get(alpha) for name, each in intervals.items() for alpha in ALPHAS}
    return found


def main() -> None:
    """Write inputs and what was said of them into one file."""
    written: dict[str, object] = {}
    for name, log in logs().items():
        written |= {f"{name} {key}": each for key, each in (log | said(log)).items()}
    np.savez_compressed(sys.argv[1], **written)


if __name__ == "__main__":
    main()
