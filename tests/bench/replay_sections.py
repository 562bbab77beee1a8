"""The sections of the replay benchmark, one function each."""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
from clock import Cost, cost_of, middle, process
from replay_bench import RATES_PER_S, Bench, Beside, Case, Table, beside_peer, loop_costs, own_process, verdict
from replay_workloads import PRESET, generated

from lodestar.data import schema
from lodestar.data.ingest import ingest
from lodestar.data.reconstruction.reconstruct import complete_snapshot, workload_of
from lodestar.data.workspace import Workspace
from lodestar.features.matrix import chosen_features, decision_features
from lodestar.models.engine import EngineModel
from lodestar.models.fit import fit
from lodestar.models.latency import LatencyModel
from lodestar.models.parameters import Parameters
from lodestar.models.rows import rows_of
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.python_policy import PythonPolicy
from lodestar.pipeline.replay.record import recorded_log
from lodestar.pipeline.replay.routing.contract import Models, Policy

__all__ = ["SECTIONS"]

HEURISTICS: Final = ("random", "least-request", "aibrix-prefix-cache", "least-uncached-tokens")
LOOP_PER_S: Final = 400_000
LEARNED_PER_S: Final = 40_000
PYTHON_PER_S: Final = 20_000
MANY: Final = 100_000
MILLION: Final = 1_000_000


def in_loop(bench: Bench) -> Table:
    """Requests a second in the loop, for each workload and policy."""
    rows = []
    for case in [*bench.sharing09, *bench.poisson]:
        for policy in HEURISTICS:
            cost = middle(loop_costs(case, policy, bench.runs))
            per_s = len(case.cluster.workload) / cost.cpu_s
            rows.append((case.title, policy, *_speeds(case, cost), verdict(">= 400,000/s", per_s >= LOOP_PER_S)))
    return Table("a. In the loop", ("workload", "policy", "requests/s", "by CPU time", "target"), rows)


def _speeds(case: Case, cost: Cost) -> tuple[str, str]:
    requests = len(case.cluster.workload)
    return f"{requests / cost.wall_s:,.0f}", f"{requests / cost.cpu_s:,.0f}"


def beside(bench: Bench) -> Table:
    """In the loop and as a whole process, in turn with the peer on the same requests."""
    head = ("workload", "policy / peer's router", "loop ms (CPU): ours", "peer", "ratio (CPU)", "target")
    head += ("process s (CPU): ours", "peer", "ratio (CPU)", "simulated TTFT / TPOT / E2E ms: ours", "peer")
    rows, notes = [], []
    for case in [*bench.sharing09, *bench.poisson] if bench.peer else []:
        if isinstance(case.file, str):
            notes.append(case.file)
            continue
        for policy in ("random", "aibrix-prefix-cache"):
            both = beside_peer(bench.peer, case, policy, bench.runs, bench.folder / "home")
            rows.append(_beside_row(case.title, policy, both))
    notes.append(
        "The peer has a latency model of its own; its speed is set so that it has as many requests in flight as ours "
        "on the first 2,500 of the same arrivals. Its loop is its own `wall_time_ms`, which leaves reading the trace "
        "out; ours is `Cluster.replay`, with laying out the state and the outcomes in it. Ratios are medians over "
        "pairs of runs."
    )
    return Table("b. Beside the peer", head, rows, tuple(notes) if bench.peer else tuple(bench.absent))


def _beside_row(title: str, policy: str, both: Beside) -> tuple[str, ...]:
    ratio = both.loop_ratio()
    return (
        title,
        f"{policy} / {both.router}",
        _milliseconds(middle(both.own_loop)),
        _milliseconds(both.peer_loop()),
        f"{ratio.wall_s:.0f} x ({ratio.cpu_s:.0f} x)",
        verdict(">= 30 x", ratio.cpu_s >= 30),
        _seconds(middle(both.own_process)),
        _seconds(both.peer_process()),
        "{0.wall_s:.2f} x ({0.cpu_s:.2f} x)".format(both.process_ratio()),
        both.own_latency,
        both.peer_latency(),
    )


def _milliseconds(cost: Cost) -> str:
    return f"{cost.wall_s * 1e3:,.1f} ({cost.cpu_s * 1e3:,.1f})"


def _seconds(cost: Cost) -> str:
    return f"{cost.wall_s:.2f} ({cost.cpu_s:.2f})"


def whole_process(bench: Bench) -> Table:
    """Import, load, simulate and report 100,000 requests: from the trace's file, and from a dataset made of it."""
    case = Case(f"{MANY:,} Poisson at 40/s, 8 instances", generated(MANY, RATES_PER_S[1], 8), bench.folder)
    home = bench.folder / "home"
    assert isinstance(case.file, Path)
    ingest(Workspace.open(home), [case.file], "made")
    head = ("source", "policy / peer's router", "process s (CPU): ours", "peer", "ratio (CPU)", "target")
    rows = []
    for source, name in ((str(case.file), "the same JSON Lines file"), ("made", "a dataset ingested before")):
        for policy in ("random", "aibrix-prefix-cache"):
            if bench.peer is None:
                alone = middle(own_process(case, policy, home, source)[0] for _ in range(bench.runs))
                rows.append((name, policy, _seconds(alone), "–", "–", ">= 5 x: no peer"))
                continue
            both = beside_peer(bench.peer, case, policy, bench.runs, home, source)
            ratio = both.process_ratio()
            ours, theirs = _seconds(middle(both.own_process)), _seconds(both.peer_process())
            figures = (ours, theirs, f"{ratio.wall_s:.2f} x ({ratio.cpu_s:.2f} x)")
            rows.append((name, f"{policy} / {both.router}", *figures, verdict(">= 5 x", ratio.cpu_s >= 5)))
    _, parts = own_process(case, "random", home, str(case.file))
    spent = ", ".join(f"{part.removesuffix('_s')} {parts[part]:.2f} s" for part in ("load_s", "loop_s", "report_s"))
    note = f"Of one of our processes from the file: {spent}; the rest is the interpreter's start and imports."
    return Table(f"c. Whole process, {MANY:,} requests", head, rows, (note,))


def conversation(bench: Bench) -> Table:
    """The Mooncake conversation trace in the loop."""
    head = ("workload", "policy / peer's router", "loop s (CPU): ours", "peer", "ratio (CPU)", "target")
    rows = []
    for case in bench.mooncake:
        for policy in HEURISTICS:
            peers = ("–", "–")
            if bench.peer and policy in ("random", "aibrix-prefix-cache"):
                both = beside_peer(bench.peer, case, policy, bench.runs, bench.folder / "home")
                costs, policy = both.own_loop, f"{policy} / {both.router}"
                ratio = both.loop_ratio()
                peers = (_seconds(both.peer_loop()), f"{ratio.wall_s:.0f} x ({ratio.cpu_s:.0f} x)")
            else:
                costs = loop_costs(case, policy, bench.runs)
            cost = middle(costs)
            own = f"{cost.wall_s:.3f} ({cost.cpu_s:.3f})"
            rows.append((case.title, policy, own, *peers, verdict("<= 0.5 s", cost.cpu_s <= 0.5)))
    return Table("d. Mooncake", head, rows, () if rows else tuple(bench.absent))


def million(bench: Bench) -> Table:
    """A million generated requests before 64 instances, in a process of its own."""
    rows = []
    script = str(Path(__file__).with_name("replay_process.py"))
    for policy in ("random", "aibrix-prefix-cache"):
        settings = {"generate": [MILLION, 320.0], "engine": EngineModel.preset(PRESET).to_dict(), "instances": 64}
        words = [sys.executable, script, json.dumps({**settings, "policy": policy})]
        runs = [process(words) for _ in range(bench.runs)]
        cost = middle(cost for cost, _ in runs)
        said = [json.loads(printed.splitlines()[-1]) for _, printed in runs]
        loop_s = statistics.median(one["loop_s"] for one in said)
        peak_gib = max(one["peak_mib"] for one in said) / 1024
        figures = (f"{loop_s:.2f}", f"{MILLION / loop_s:,.0f}", _seconds(cost), f"{peak_gib:.2f} GiB")
        rows.append((policy, *figures, verdict("<= 4 GB", peak_gib * 1.073741824 <= 4)))
    head = ("policy", "loop s", "requests/s", "process s (CPU)", "peak memory", "target")
    return Table(f"e. {MILLION:,} requests at 320/s, 64 instances", head, rows)


def learned(bench: Bench) -> Table:
    """Decisions a second by a model of 100 trees with 31 leaves, and what the loop takes without it."""
    case = bench.poisson[1]
    model = _model(case)
    rows = []
    for title, policy in (
        (f"learned, {_shape(model)}", make_policy("learned", Models.of(model))),
        ("random", make_policy("random")),
    ):
        cost = middle(_runs(case, policy, bench.runs))
        per_s = len(case.cluster.workload) / cost.cpu_s
        target = verdict(">= 40,000/s", per_s >= LEARNED_PER_S) if policy.name == "learned" else "–"
        rows.append(
            (case.title, title, *_speeds(case, cost), f"{cost.cpu_s / len(case.cluster.workload) * 1e6:.2f}", target)
        )
    head = ("workload", "policy", "decisions/s", "by CPU time", "CPU µs each", "target")
    return Table("f. The learned policy in the loop", head, rows)


def _runs(case: Case, policy: Policy, runs: int) -> list[Cost]:
    case.cluster.replay(policy)
    return [cost_of(lambda: case.cluster.replay(policy)) for _ in range(runs)]


def _model(case: Case) -> LatencyModel:
    """Train a model of the wanted size on a recorded replay."""
    policy = make_policy("random")
    log = recorded_log("made", case.cluster, policy, case.cluster.replay(policy, record=True))
    workload = workload_of(log)
    snapshot, _ = complete_snapshot(log, workload)
    features = chosen_features(log, decision_features(log, snapshot))
    rows = rows_of(log, features, workload.arrived_at_s, schema.TTFT_MS)
    return fit(rows, schema.TTFT_MS, Parameters(num_leaves=31, min_data_in_leaf=20, rounds=100), 0)[0]


def _shape(model: LatencyModel) -> str:
    leaves = [tree["num_leaves"] for tree in model.booster.dump_model()["tree_info"]]
    return f"{model.trees} trees of {min(leaves)} to {max(leaves)} leaves"


class FewestInFlight:
    """A policy as a user writes one: nothing is compiled."""

    name = "fewest-in-flight"

    def choose(self, request: object, snapshot: object, state: object, rng: np.random.Generator) -> int:
        """Prefer instances that have the prefix and little in flight."""
        return int(np.argmin(snapshot.inflight_requests - 4.0 * snapshot.hit_ratio))


def in_python(bench: Bench) -> Table:
    """Decisions a second by a policy written in plain Python."""
    case = bench.poisson[1]
    title = "g. A policy in plain Python"
    policy = PythonPolicy("FewestInFlight", Path(__file__), FewestInFlight)
    cost = middle(_runs(case, policy, bench.runs))
    per_s = len(case.cluster.workload) / cost.cpu_s
    row = (case.title, *_speeds(case, cost), verdict(">= 20,000/s", per_s >= PYTHON_PER_S))
    return Table(title, ("workload", "decisions/s", "by CPU time", "target"), [row])


def start_up(bench: Bench) -> Table:
    """The first use on a machine, which compiles, and later ones, beside what Python and Numba need alone."""
    case = Case("10 requests", generated(10, 1.0, 2), bench.folder)
    home = bench.folder / "home"
    assert isinstance(case.file, Path)

    def replay() -> Cost:
        return own_process(case, "random", home, str(case.file))[0]

    with TemporaryDirectory() as empty:
        first = _first_use(replay, empty)
    bare, numba = (_median_of(words, bench.runs) for words in ("pass", "import numba"))
    replay()
    later = middle(replay() for _ in range(bench.runs))
    named = {"python -c pass": bare, 'python -c "import numba"': numba}
    named |= {"replay of 10 requests, later": later, "the same, first use, which compiles (once)": first}
    rows = [(name, _seconds(cost), f"{cost.wall_s / bare.wall_s:.0f} x") for name, cost in named.items()]
    return Table("h. Start-up", ("process", "s (CPU)", "to a bare interpreter"), rows)


def _first_use(replay: Callable[[], Cost], cache: str) -> Cost:
    """Run once with an empty cache of machine code."""
    saved = {name: os.environ.pop(name, None) for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    os.environ["XDG_CACHE_HOME"] = cache
    try:
        return replay()
    finally:
        del os.environ["XDG_CACHE_HOME"]
        os.environ.update({name: value for name, value in saved.items() if value is not None})


def _median_of(code: str, runs: int) -> Cost:
    return middle(process([sys.executable, "-c", code])[0] for _ in range(runs))


SECTIONS: Final[dict[str, Callable[[Bench], Table]]] = {
    "a": in_loop,
    "b": beside,
    "c": whole_process,
    "d": conversation,
    "e": million,
    "f": learned,
    "g": in_python,
    "h": start_up,
}
