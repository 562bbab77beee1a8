"""How costs grow with a log, and what small parts cost beside what they are added to: ``python tests/bench/growth.py``.

Part a runs each function on n and on 4 n rows in the same process: processor time grows as n to the power that is
printed; 1 is linear, 2 is quadratic. Part b prints ratios to a baseline of the same run. Medians of `REPEATS` runs.
"""

from __future__ import annotations

import io
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import lightgbm as lgb
import numpy as np
from clock import cost_of, middle

from lodestar.data.reconstruction.arrivals import infer_arrivals, inflight_by_instance
from lodestar.data.reconstruction.prefix_groups import infer_groups
from lodestar.data.sources.blocks import blocks
from lodestar.data.workloads.sharing import sharing_workload
from lodestar.models.uncertainty.heads import fit_heads
from lodestar.models.uncertainty.paired import paired_interval
from lodestar.pipeline.estimation.intervals.bounds import Bounds
from lodestar.pipeline.estimation.intervals.confidence_sequence import confidence_sequence
from lodestar.pipeline.replay.policy_file import load_python_policy

REPEATS: Final = 5
TIMES: Final = 4
MOST_POWER: Final = 1.5  # half-way from linear to quadratic: caches that overflow cost a few tenths
MOST_OF_MEAN: Final = 1.0  # two heads beside the mean of 100 trees
MOST_PYTHON_US: Final = 10.0

Run = Callable[[], object]


def broken_lines(rows: int) -> Run:
    """Cut a stream of which no line can be decoded."""
    content = b"caf\xe9,1,2\n" * rows
    return lambda: [len(block.aside) for block in blocks(io.BytesIO(content))]


def lost_hits(rows: int) -> Run:
    """Infer prefix groups of ten requests on 40 instances, of whose hits a tenth is lost."""
    rng, instances = np.random.default_rng(0), 40
    group = rng.permutation(np.arange(rows) // 10)
    chosen, share = rng.integers(0, instances, rows), np.full(rows, 0.47)
    members = np.argsort(group, kind="stable").reshape(-1, 10)
    hits = np.zeros((rows, instances))
    for rank in range(10):
        for before in range(rank):
            hits[members[:, rank], chosen[members[:, before]]] = share[members[:, rank]]
    hits[rng.random(hits.shape) < 0.1] = 0.0
    prompt = rng.choice(np.array([1000, 2000, 4000, 8000]), rows // 10)[group]
    return lambda: infer_groups(prompt, hits, chosen)


def arrivals(rows: int) -> Run:
    """Infer arrival times from end-to-end times and counts in flight on 8 instances."""
    rng = np.random.default_rng(3)
    truth, e2e_s = np.cumsum(rng.exponential(0.05, rows)), rng.lognormal(1.5, 0.5, rows)
    chosen = rng.integers(0, 8, rows)
    counts = inflight_by_instance(truth, e2e_s, chosen, 8)
    return lambda: infer_arrivals(e2e_s, counts, chosen)


def paired(rows: int) -> Run:
    """Bound a mean difference."""
    values = np.random.default_rng(0).normal(size=rows)
    return lambda: paired_interval(values)


def sequence(rows: int) -> Run:
    """Bound a weighted mean at every number of decisions."""
    random = np.random.default_rng(0)
    cost, weight = random.random(rows), random.choice([0.0, 8.0], rows, p=[0.875, 0.125])
    return lambda: confidence_sequence(cost, weight, Bounds(0.0, 1.0))


GROWING: Final = {
    "broken lines of a stream": (broken_lines, 100_000),
    "prefix groups, lost hits": (lost_hits, 40_000),  # fewer fit into the processor's caches
    "arrivals": (arrivals, 10_000),
    "paired interval": (paired, 50_000),
    "confidence sequence": (sequence, 50_000),
}


def cpu_s(run: Run) -> float:
    """Return the median processor time, after one run to warm up."""
    run()
    return middle(cost_of(run) for _ in range(REPEATS)).cpu_s


def verdict(met: bool) -> str:
    """Return the word."""
    return "met" if met else "MISSED"


def heads_beside_mean() -> float:
    """Return what the quantile heads of a model cost to fit, as a share of its mean of 100 trees."""
    common = {"verbose": -1, "num_threads": 1, "seed": 0, "deterministic": True, "force_col_wise": True}
    mean = {**common, "objective": "l2", "num_leaves": 15, "min_data_in_leaf": 60, "learning_rate": 0.02}
    inputs = np.random.default_rng(5).uniform(0.0, 1.0, (20_000, 20))
    label = inputs[:, 0] + np.random.default_rng(6).normal(size=20_000)
    data = lgb.Dataset(inputs, label, weight=0.5 + inputs[:, 1], params={"feature_pre_filter": False}).construct()
    return cpu_s(lambda: fit_heads(data, common)) / cpu_s(lambda: lgb.train(mean, data, 100))


def python_decision_us() -> float:
    """Return what a decision by a user's Python class costs beside the class's own code."""
    decisions = 2000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mine.py")
        path.write_text("class Mine:\n    def choose(self, request, snapshot, state, rng):\n        return 0\n")
        policy = load_python_policy(f"{path}:Mine")
    policy.start(sharing_workload(decisions, rate_per_s=10, sharing_ratio=0.5, seed=0), np.zeros((8, 10)), 0)
    return cpu_s(lambda: [policy.decide(i) for i in range(decisions)]) / decisions * 1e6


def main() -> None:
    """Print a line a measurement."""
    print(f"a. growth from n to {TIMES} n rows: at most n^{MOST_POWER}")
    for name, (made, rows) in GROWING.items():
        small, large = cpu_s(made(rows)), cpu_s(made(TIMES * rows))
        power = math.log(large / small) / math.log(TIMES)
        print(
            f"{name:26s} {rows:7,d} rows {small * 1e3:7.1f} ms, {TIMES * rows:7,d} rows {large * 1e3:7.1f} ms: "
            f"{large / small:5.2f} x, n^{power:.2f}: {verdict(power <= MOST_POWER)}"
        )
    share, spent_us = heads_beside_mean(), python_decision_us()
    print("b. beside what it is added to")
    print(f"quantile heads: {share:.2f} x the mean's fit, at most {MOST_OF_MEAN:g}: {verdict(share <= MOST_OF_MEAN)}")
    print(
        f"a decision by a Python class: {spent_us:.1f} µs beside its own code, at most {MOST_PYTHON_US:g}: "
        f"{verdict(spent_us <= MOST_PYTHON_US)}"
    )


if __name__ == "__main__":
    main()
