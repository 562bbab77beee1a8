"""What one decision costs, by every way of scoring it.

Run ``python tests/bench/scoring_speed.py [TRACES] > docs/scoring.md``.

TRACES holds ``lodestar/sharing09``; without it, the decisions are those of a simulated cluster under random routing.
"""

from __future__ import annotations

import gc
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightgbm as lgb
import numba
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scoring_page import CONCLUSION, INTRODUCTION

from lightgbm_c_api import CModel
from lodestar.data.ingest import ingest
from lodestar.data.log import RequestLog
from lodestar.data.native_write import write_decision_log
from lodestar.data.reconstruction.reconstruct import complete_snapshot, workload_of
from lodestar.data.schema import SNAPSHOT_FIELDS
from lodestar.data.store import load_log, open_store
from lodestar.data.workloads.sharing import sharing_workload
from lodestar.data.workspace import Workspace
from lodestar.features.definitions import FEATURE_NAMES, candidate_features
from lodestar.models.artifact import SCHEMA_VERSION
from lodestar.models.baseline import fit_baseline
from lodestar.models.engine import EngineModel
from lodestar.models.latency import LatencyModel
from lodestar.models.scorer import Scorer, score, score_in, scorer_of
from lodestar.models.seal import write_manifest
from lodestar.models.serving import Decider, all_paths
from lodestar.models.textmodel import parse_trees
from lodestar.models.uncertainty.conformal import QUANTILES, Conformal
from lodestar.models.uncertainty.heads import HEADS
from lodestar.pipeline.replay.cluster import Cluster
from lodestar.pipeline.replay.policy_names import make_policy
from lodestar.pipeline.replay.record import recorded_log

Floats = NDArray[np.float64]
#: Takes prompt tokens, snapshot and features of a decision, and returns one number a candidate.
Way = Callable[[float, Floats, Floats], Floats]

DECISIONS = 400
BLOCKS, BLOCK, WARM = 8, 40, 3  # every way times BLOCK decisions in a row, BLOCKS times in turn with the others
COLD = 40
OTHER_BYTES = 8 << 20  # written between cold decisions: more than the caches of a core hold
SHAPES = ((100, 15), (300, 31), (300, 63))
CANDIDATES = (1, 8, 64)
TARGET_US = 60.0
THREADS, REFERENCE = "Booster.predict, default threads", "Booster.predict, one thread"
OURS = ("compiled scorer", "with features")  # these give ms, the others sums of leaves
TOLERANCE = 1e-9
WIDTH = len(FEATURE_NAMES)


@dataclass(frozen=True, slots=True)
class Decisions:
    """Logged decisions.

    Attributes:
        source: where they are from.
        prompt_tokens: shape (n,).
        snapshots: shape (n, m, len(SNAPSHOT_FIELDS)).
        trained_on: features of the chosen candidates, (rows, len(FEATURES)).
        ttft_ms: of these.
    """

    source: str
    prompt_tokens: Floats
    snapshots: Floats
    trained_on: Floats
    ttft_ms: Floats

    def over(self, candidates: int) -> tuple[Floats, Floats]:
        """Return prompts (n,) and snapshots (n, candidates, 10) of decisions over so many candidates."""
        pool = self.snapshots.reshape(-1, len(SNAPSHOT_FIELDS))
        starts = np.linspace(0, len(pool) - candidates, DECISIONS).astype(np.int64)
        snapshots = np.stack([pool[start : start + candidates] for start in starts])
        return self.prompt_tokens[starts // self.snapshots.shape[1]], snapshots


def decisions_of(workspace: Workspace, path: Path, source: str) -> Decisions:
    """Ingest a log and take its decisions."""
    ingest(workspace, [path], "measured")
    with open_store(workspace) as con:
        log = load_log(con, "measured")
    snapshot, _ = complete_snapshot(log, workload_of(log))
    snapshots = np.ascontiguousarray(np.stack([snapshot[name] for name in SNAPSHOT_FIELDS], axis=-1), dtype=np.float64)
    prompts = np.where(log.prompt_tokens > 0, log.prompt_tokens, np.nan).astype(np.float64)
    usable = (log.ttft_ms > 0) & (log.chosen >= 0)
    features = features_of(prompts, snapshots)[np.arange(len(log)), log.chosen]
    return Decisions(source, prompts, snapshots, features[usable], log.ttft_ms[usable])


def simulated_log() -> RequestLog:
    """Log 4,000 requests on 8 simulated engines under random routing."""
    engine = replace(EngineModel.preset("l40s-llama-3.1-8b"), noise_ratio=0.05)
    cluster = Cluster.of([engine] * 8, sharing_workload(4_000, 16.0, 0.5, 0))
    policy = make_policy("random")
    return recorded_log("measured", cluster, policy, cluster.replay(policy, seed=0, record=True))


def features_of(prompt_tokens: Floats, snapshots: Floats) -> Floats:
    """Return the features of all candidates of all decisions, shape (n, m, features)."""
    out = np.empty((*snapshots.shape[:2], WIDTH))
    for i in range(len(out)):
        candidate_features(prompt_tokens[i], snapshots[i], out[i])
    return out


def model_of(decisions: Decisions, rounds: int, leaves: int) -> LatencyModel:
    """Fit a TTFT model with quantile heads; offsets come from the rows themselves, as only the cost of them matters."""
    features, latency_ms = decisions.trained_on, decisions.ttft_ms
    baseline = fit_baseline(features, latency_ms)
    log_ratio = np.log(latency_ms / baseline.predict(features))

    def trees(objective: str, alpha: float = 0.5) -> lgb.Booster:
        parameters = {
            "objective": objective, "alpha": alpha, "num_leaves": leaves, "min_data_in_leaf": 10, "verbose": -1,
            "learning_rate": 0.05, "num_threads": 1, "seed": 0, "bagging_fraction": 0.7, "bagging_freq": 1,
        }  # fmt: skip
        return lgb.train(parameters, lgb.Dataset(features, log_ratio), rounds)

    heads = {name: trees("quantile", QUANTILES[name]) for name in HEADS}
    return LatencyModel("ttft_ms", FEATURE_NAMES, baseline, trees("l2"), 1.05, heads, Conformal.fresh())


@numba.njit(nogil=True, error_model="numpy")
def walk(features: Floats, roots: Any, feature: Any, threshold: Floats, left: Any, leaf: Floats, out: Floats) -> None:
    """Walk from node to node; a right child follows `left`, and a leaf has feature -1. NaN goes right."""
    for j in range(features.shape[0]):
        total = 0.0
        for root in roots:
            n = root
            while feature[n] >= 0:
                n = left[n] + (not features[j, feature[n]] <= threshold[n])
            total += leaf[n]
        out[j] = total


def walker_arrays(booster: lgb.Booster) -> tuple[Any, ...]:
    """Lay the nodes out so that the two children of a node lie side by side."""
    roots, feature, threshold, left, leaf = [], [], [], [], []  # type: ignore[var-annotated]
    for tree in parse_trees(booster):
        roots.append(len(feature))
        pending = [(0 if tree.threshold else ~0, len(feature))]
        for into in (feature, threshold, left, leaf):
            into.append(0)
        while pending:
            node, at = pending.pop()
            if node < 0:
                feature[at], leaf[at] = -1, tree.leaf[~node]
                continue
            feature[at], threshold[at], left[at] = tree.feature[node], tree.threshold[node], len(feature)
            pending += [(tree.left[node], len(feature)), (tree.right[node], len(feature) + 1)]
            for into in (feature, threshold, left, leaf):
                into += [0, 0]
    return (
        np.array(roots), np.array(feature), np.array(threshold, dtype=np.float64), np.array(left),
        np.array(leaf, dtype=np.float64),
    )  # fmt: skip


@numba.njit(nogil=True, error_model="numpy")
def in_the_replay(prompts: Floats, snapshots: Floats, features: Floats, s: Scorer, room: Any, out: Floats) -> None:
    """Make the features of every decision and score them, from compiled code."""
    for i in range(snapshots.shape[0]):
        candidate_features(prompts[i], snapshots[i], features)
        score_in(features, s, room, out)


def ways(model: LatencyModel, decider: Decider, candidates: int, stack: ExitStack) -> dict[str, Way]:
    """Return every way to score a decision from Python."""
    booster, scorer, walked = model.booster, scorer_of(model), walker_arrays(model.booster)
    c = stack.enter_context(CModel(model.text(), WIDTH, candidates))
    out = np.empty(candidates)

    def filled(predict: Callable[[], Floats]) -> Way:
        def run(prompt: float, snapshot: Floats, features: Floats) -> Floats:
            c.rows[:] = features
            return predict()

        return run

    def walker(prompt: float, snapshot: Floats, features: Floats) -> Floats:
        walk(features, *walked, out)
        return out

    def compiled(prompt: float, snapshot: Floats, features: Floats) -> Floats:
        score(features, scorer, out)
        return out

    return {
        THREADS: lambda prompt, snapshot, features: booster.predict(features),
        REFERENCE: lambda prompt, snapshot, features: booster.predict(features, num_threads=1),
        "C API, all rows at once": filled(c.all_rows),
        "C API, fast path row by row": filled(c.row_by_row),
        "walker": walker,
        "compiled scorer": compiled,
        "with features: Decider.predict": lambda prompt, snapshot, features: (
            decider.predict(prompt, snapshot)["ttft_ms"].mean_ms
        ),
        "with features: mean and three quantiles": lambda prompt, snapshot, features: (
            decider.predict(prompt, snapshot, quantiles=True)["ttft_ms"].mean_ms
        ),
    }


def rows_of(model: LatencyModel, decisions: Decisions, candidates: int) -> Iterator[tuple[str, ...]]:
    """Time every way on the same decisions; yield a row of the table for each."""
    prompts, snapshots = decisions.over(candidates)
    inputs = list(zip(prompts, snapshots, features_of(prompts, snapshots), strict=True))
    with ExitStack() as stack:
        every = ways(model, Decider.of({"ttft_ms": model}).warmed(), candidates, stack)
        threaded = every.pop(THREADS)
        blocks: dict[str, list[list[float]]] = {name: [] for name in every}
        for block in range(BLOCKS):
            some = [inputs[i % len(inputs)] for i in range(block * BLOCK, (block + 1) * BLOCK + WARM)]
            for name, run in every.items():
                blocks[name].append(timed_us(run, some)[WARM:])
        cold = {name: f"{np.median(timed_us(run, inputs[:COLD], cold=True)):,.1f}" for name, run in every.items()}
        apart = {name: f"{farthest(model, name, run, inputs[::8]):.0e}" for name, run in every.items()}
        blocks[THREADS] = [timed_us(threaded, inputs[: BLOCK + WARM])[WARM:]]  # its threads disturb what follows
    reference = np.median(np.array(blocks[REFERENCE]), axis=1)
    for name, each in blocks.items():
        low, middle, high = np.percentile(each, [5, 50, 95])
        ratio = float(np.median(reference[: len(each)] / np.median(np.array(each), axis=1)))
        spread = f"{low:,.1f}–{high:,.1f}"
        yield name, f"{middle:,.1f}", spread, f"{ratio:.1f}", cold.get(name, ""), apart.get(name, "")
    low, middle, high = np.percentile(replayed_us(model, prompts, snapshots), [5, 50, 95])
    ratio = float(np.median(reference)) / middle
    yield "with features: in the replay", f"{middle:,.1f}", f"{low:,.1f}–{high:,.1f}", f"{ratio:.1f}", "", ""


def timed_us(run: Way, inputs: Sequence[tuple[float, Floats, Floats]], cold: bool = False) -> list[float]:
    """Return the time of each decision; a cold one comes after much other memory was written."""
    took, other = [], np.zeros(OTHER_BYTES // 8 if cold else 1)
    for prompt, snapshot, features in inputs:
        if cold:
            other += 1.0
        started = time.perf_counter()
        run(prompt, snapshot, features)
        took.append((time.perf_counter() - started) * 1e6)
    return took


def farthest(model: LatencyModel, name: str, run: Way, inputs: Sequence[tuple[float, Floats, Floats]]) -> float:
    """Return the largest relative difference to what the model predicts through LightGBM."""
    apart = 0.0
    for prompt, snapshot, features in inputs:
        found = run(prompt, snapshot, features)
        ms = found if name.startswith(OURS) else _in_ms(model, found, features)
        apart = max(apart, float(np.abs(ms / model.predict(features) - 1.0).max()))
    return apart


def _in_ms(model: LatencyModel, raw: Floats, features: Floats) -> Floats:
    return np.asarray(model.mean_ratio * model.baseline.predict(features) * np.exp(raw))


def replayed_us(model: LatencyModel, prompts: Floats, snapshots: Floats) -> list[float]:
    """Return the mean time of a decision from compiled code, of several runs over all decisions."""
    scorer, candidates = scorer_of(model), snapshots.shape[1]
    features, room, out = (
        np.empty((candidates, WIDTH)),
        np.empty(len(scorer.leaf_start), np.uint64),
        np.empty(candidates),
    )
    took = []
    for _ in range(16):
        started = time.thread_time()  # a run is long enough for others to get the core meanwhile
        in_the_replay(prompts, snapshots, features, scorer, room, out)
        took.append((time.thread_time() - started) / len(prompts) * 1e6)
    return took[1:]


def apart_by_quantile(model: LatencyModel, decisions: Decisions) -> float:
    """Return the largest relative difference between LightGBM and serving, over the mean and all quantiles."""
    prompts, snapshots = decisions.over(8)
    paths = all_paths(model, features_of(prompts, snapshots).reshape(-1, WIDTH))
    expected = paths.pop("LightGBM")
    return max(float(np.abs(ms / expected[name] - 1.0).max()) for path in paths.values() for name, ms in path.items())


def loading(folder: Path, model: LatencyModel) -> str:
    """Return how long a fresh process takes until it has predicted once, with and without LightGBM."""
    model.save_trees(folder, "ttft_ms")
    write_manifest(folder, {"schema_version": SCHEMA_VERSION, "targets": {"ttft_ms": {"model": model.to_dict()}}})
    by = {
        "Booster.predict": "import numpy as np; from lodestar.models.artifact import load_artifact; "
        f"load_artifact(folder)['ttft_ms'].predict_quantiles(np.zeros((1, {WIDTH})))",
        "Decider.predict": "from lodestar.models.serving import Decider; Decider.load(folder)",
    }
    rows = []
    for name, code in by.items():
        took = [
            _process_s(f"import sys; from pathlib import Path; folder = Path({str(folder)!r}); {code}")
            for _ in range(6)
        ]
        rows.append((name, f"{np.median(took[1:]):.2f}", f"{min(took[1:]):.2f}–{max(took[1:]):.2f}"))
    return table(("scored by", "s", "range"), rows)


def _process_s(code: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - started


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    lines = [list(head), *(list(row) for row in rows)]
    lines.insert(1, ["---"] + ["---:"] * (len(lines[0]) - 1))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def page(decisions: Decisions) -> Iterator[str]:
    """Yield the document, part by part."""
    versions = {"lightgbm": lgb.__version__, "numba": numba.__version__, "numpy": np.__version__}
    yield INTRODUCTION.format(
        source=decisions.source,
        block=BLOCK,
        blocks=BLOCKS,
        cold=COLD,
        other=OTHER_BYTES >> 20,
        python=platform.python_version(),
        cores=os.cpu_count(),
        **versions,
    )
    models = {shape: model_of(decisions, *shape) for shape in SHAPES}
    for (rounds, leaves), model in models.items():
        for candidates in CANDIDATES:
            yield f"## {candidates} candidate{'s' * (candidates > 1)}, {rounds} trees of {leaves} leaves\n"
            rows = list(rows_of(model, decisions, candidates))
            yield table(("way", "µs", "P5–P95", "times faster", "cold µs", "difference"), rows)
            if (rounds, leaves, candidates) == (300, 31, 8):
                whole_us = next(float(row[1]) for row in rows if row[0].endswith("Decider.predict"))
                verdict = "met" if whole_us <= TARGET_US else "missed"
                yield f"Target: a whole decision, features included, in {TARGET_US:.0f} µs or less: {verdict}.\n"
    yield "## Means and quantiles, LightGBM and compiled\n"
    apart = {shape: apart_by_quantile(model, decisions) for shape, model in models.items()}
    rows = (
        (f"{a} trees of {b} leaves", f"{x:.0e}", "met" if x <= TOLERANCE else "missed") for (a, b), x in apart.items()
    )
    yield table(("mean, P50, P90 and P99", "largest relative difference", f"<= {TOLERANCE:.0e}"), rows)
    yield "## From the start of a process to its first prediction\n"
    with TemporaryDirectory() as folder:
        (Path(folder) / "artifact").mkdir()
        yield loading(Path(folder) / "artifact", models[SHAPES[0]])
    yield CONCLUSION


def main(traces: Path | None) -> None:
    """Print the document."""
    gc.disable()
    with TemporaryDirectory() as folder:
        workspace = Workspace.open(Path(folder))
        if traces is not None:
            path, source = traces / "lodestar" / "sharing09" / "random.csv.gz", "`sharing09`, `random`"
        else:
            path, source = Path(folder) / "simulated.jsonl", "a simulated cluster of 8 engines"
            write_decision_log(path, simulated_log())
        for part in page(decisions_of(workspace, path, source)):
            print(part, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
