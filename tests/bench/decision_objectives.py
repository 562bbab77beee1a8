"""Which objective makes the best choices: ``python tests/bench/decision_objectives.py [TRACES] > docs/objectives.md``.

TRACES holds ``lodestar/sharing09``, ``lodestar/sharing47`` and ``mooncake``; without it, generated workloads alone.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import polars as pl
from decision_cells import INSTANCES, LOADS, LOGGERS, PRESET, SEEDS, cells, workloads
from decision_runs import MARKS, cell_rows
from decision_surfaces import accuracy, logs, surfaces
from decision_tables import BASE, KEY, accuracy_table, closed_loop, overall, surface_table, table, verdict

from lodestar.models.objectives import OBJECTIVES
from lodestar.models.parameters import Parameters
from lodestar.pipeline.replay.parallel import mapper

MONOTONE: Final = (BASE, "choice")
#: Ways to fit: every objective, and two with monotone constraints.
WAYS: Final = {name: Parameters(objective=name) for name in OBJECTIVES} | {
    f"{name}, monotone": Parameters(objective=name, monotone=True) for name in MONOTONE
}
INTRODUCTION: Final = (
    "Printed by `python tests/bench/decision_objectives.py [TRACES]`{without}. An objective says how rows weigh in the "
    "fit of the mean (`models/objectives.py`). Each is fitted to a log of the first half of a workload and routes the "
    "second half, greedily, before {instances} equal engines ({engine}): {workloads}; loads of {loads} of saturation; "
    "logs made by {loggers}; {seeds} seeds, the same for all objectives.",
    "*Regret* is one-step: the TTFT that the chosen candidate gives, above the best one's, as the simulated engines "
    "tell when they run ahead; at the states that the model itself brings about (*own*) and at those of a random "
    "router, the same for all (*random*). *Ranking* is Spearman's correlation between predicted and true TTFT of the "
    "candidates of a decision, averaged. MAE and R² are of the random router's choices.",
    "`choice` was chosen with these workloads in view, among some forty ways to weigh (by distance from the best "
    "candidate, by the chance that a greedy router takes it, by the spread of a decision, and fits of the differences "
    "between candidates in the manner of an R-learner): expect somewhat less of it elsewhere. What needs the baselines "
    "of all candidates was not clearly better than what needs one's own.",
)
DIFFERENCES = """Mean difference, paired by seed, and its 95 % interval by Student's t over the cells. Cells share
workloads, so that the intervals are somewhat too narrow for workloads unlike these.
"""
RULE = f"""The default is `{BASE}` unless another is better at mean TTFT in the closed loop by these intervals, and no
worse on the real logs below: regret is of one step, and less of it need not make a faster cluster.
"""
REAL_LOGS = """## Real logs

MAE in ms / R² of log TTFT on the last 30 % of each; trained on the rest, 3 seeds. The llm-d logs tell of the chosen
instance alone. An objective is left out where the logs lack what it needs.
"""
SURFACES = """## Where the fitted surface defies physics

Each row of the last 30 % takes a step that can only slow an engine down, all that derives from it moves along, and the
prediction should not fall (`models/surface.py`): the share of rows whose prediction falls, and the worst fall.
Constraints hold for the trees alone, and in each feature by itself: coefficients of counts in the baseline may be
negative, and a request that comes or a hit that goes moves features that are not held.
"""


def measured(traces: Path | None) -> tuple[pl.DataFrame, list[str]]:
    """Return one row a cell, seed and way, and the workloads."""
    found, engine = workloads(traces)
    with mapper() as cores:
        rows: list[dict[str, Any]] = []
        for its in cores.map(partial(cell_rows, ways=WAYS), cells(found, engine)):
            rows += its
            print(f"{its[0]['workload']}, {its[0]['load']:.0%}, {its[0]['logger']}: {its[0]['seed']}", file=sys.stderr)
    return pl.DataFrame(rows), list(found)


def main(arguments: list[str]) -> None:
    """Print the page."""
    began = time.perf_counter(), time.process_time()
    traces = Path(arguments[0]) if arguments else None
    frame, names = measured(traces)
    print(_introduction(traces, names))
    print(table(("objective", "how rows weigh"), ((f"`{n}`", _in_one_line(each)) for n, each in OBJECTIVES.items())))
    others = [name for name in OBJECTIVES if name != BASE]
    print(f"## Over all {frame.select(KEY).n_unique()} cells, beside `{BASE}`\n")
    print(DIFFERENCES)
    print(overall(frame, others))
    print(f"By these intervals, beside `{BASE}`:\n")
    print(verdict(frame, others))
    print(RULE)
    columns = [*WAYS, *MARKS]
    print(f"## Closed loop: mean TTFT, ms\n\n{closed_loop(frame, 'mean_ms', columns)}")
    print(f"## Closed loop: P99 TTFT, ms\n\n{closed_loop(frame, 'p99_ms', columns)}")
    print(f"## MAE, ms\n\n{closed_loop(frame, 'mae_ms', list(WAYS))}")
    print("## Monotone constraints, beside the same objective without\n")
    print("The trees may not predict less for a longer queue or a smaller hit (`models/monotone.py`).\n")
    for name in MONOTONE:
        print(overall(frame, [f"{name}, monotone"], name))
    if traces:
        found = dict(logs(traces))
        print(REAL_LOGS)
        print(accuracy_table(accuracy(found, WAYS)))
        print(SURFACES)
        print(surface_table(surfaces(found, {name: WAYS[name] for name in (BASE, f"{BASE}, monotone")})))
    wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    print(f"{wall:.0f} s, {cpu:.0f} s of CPU", file=sys.stderr)


def _introduction(traces: Path | None, names: list[str]) -> str:
    facts = {
        "without": "" if traces else ", here without TRACES",
        "instances": INSTANCES,
        "engine": "fitted to sharing09" if traces else f"the preset `{PRESET}`",
        "workloads": ", ".join(names),
        "loads": " and ".join(f"{load:.0%}" for load in LOADS),
        "loggers": " and ".join(f"`{logger}`" for logger in LOGGERS),
        "seeds": SEEDS,
    }
    paragraphs = (textwrap.fill(paragraph.format(**facts), 120, break_on_hyphens=False) for paragraph in INTRODUCTION)
    return "\n\n".join(("# Which objective makes the best choices", *paragraphs)) + "\n"


def _in_one_line(function: object) -> str:
    return " ".join((inspect.getdoc(function) or "").split())


if __name__ == "__main__":
    main(sys.argv[1:])
