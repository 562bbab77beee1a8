"""How fast training is: ``python tests/bench/training_speed.py [--rows N] [--write docs/training.md]``.

(a) A store of a million requests with 8 candidates each gets 10,000 new ones: the whole call of an incremental
training beside that of a full one, and the losses of both models on the 10,000 requests after them. (b) A full fit
(baseline, mean and quantile heads) beside bare ``lightgbm.train`` of the same boosters on the same matrix, in turn.
(c) Strategies on real logs and on streams whose law changes half way, every batch predicted before it is learned from.
(d) What quantiles cover on such streams, by load slice.
Each call of (a) is a process of its own. Figures are seconds by the wall clock and of processor time, with one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bare_boosters import bare, matrix_of
from clock import Cost, cost_of, middle
from coverage_streams import coverage_section
from refresh_streams import strategies_section
from training_store import CANDIDATES, add_requests

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lodestar.data.workspace import Workspace
from lodestar.models.dataset import load_new_data, load_training_data
from lodestar.models.fit import fit
from lodestar.models.latency import LatencyModel
from lodestar.models.parameters import Parameters
from lodestar.models.refresh.chain import load_state
from lodestar.models.refresh.losses import Losses, losses_of
from lodestar.models.rows import Rows
from lodestar.models.train import train
from process_memory import peak_mib

ROWS, NEW_ROWS = 1_000_000, 10_000
FIT_ROWS = 200_000
TARGET = "ttft_ms"
MOST_SHARE, MOST_LOSS, MOST_OVERHEAD = 0.10, 1.02, 1.15

HEAD = """# How fast training is

Printed by `python tests/bench/training_speed.py --write docs/training.md`, with LightGBM {lightgbm} and
`num_threads=1`, Python {python}, on {machine}. Target: `{target}`, by the
default parameters. Processor time (user and system) is what the targets are judged by: a machine that others use does
not stretch it.

Strategies of `lodestar train --incremental`: **continue** adds trees on the new rows, until a limit; **window** fits a
sliding window anew; **refit** gives the leaves of the mean new values; **auto** measures them on the newest rows and
goes on with the best (of those that cost under a second, the most accurate), until errors drift or eight updates later.
`--every` (250) new rows make an update due, drift makes it due sooner, and until then new rows are predicted and
calibrate the quantiles. Leave both as they are unless a section below says otherwise of a log like yours. *To full*: a
model's MAE less the full retrain's, below 0 is better.
"""


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def called(home: Path, incremental: bool, strategy: str) -> dict[str, Any]:
    """Train in a process of its own."""
    words = [sys.executable, __file__, "--child", str(home), strategy, *(["--incremental"] if incremental else [])]
    found: dict[str, Any] = json.loads(subprocess.check_output(words, text=True).splitlines()[-1])
    return found


def child(home: Path, incremental: bool, strategy: str) -> None:
    """Train once; print what it took."""
    workspace = Workspace.open(home)
    wall, cpu = time.perf_counter(), time.process_time()
    report = train(workspace, "made", incremental=incremental, strategy=strategy, targets=(TARGET,))
    took = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    found = report.targets[TARGET]
    print(
        json.dumps(
            took | {"peak_mib": peak_mib(), "mode": found["mode"], "reason": found["reason"], "notes": report.notes}
        )
    )


def newest_model(workspace: Workspace) -> LatencyModel:
    """Return the model that was fitted last, in use or not."""
    state = load_state(workspace, "made")
    assert state is not None
    return state.chains[TARGET].trained.model


def measured(model: LatencyModel, rows: Rows) -> Losses:
    """Return the losses on rows that the model has not seen."""
    return losses_of(rows, model.predict(rows.features), model.predict_quantiles(rows.features))


def refresh_section(rows: int, home: Path) -> Iterator[str]:
    """Yield the lines of (a)."""
    workspace = Workspace.open(home)
    cost = cost_of(lambda: add_requests(workspace, 0, rows))
    yield f"Store of {rows:,} requests × {CANDIDATES} candidates, written and ingested in {cost.wall_s:.0f} s.\n"
    _compile(home / "small")
    first = called(home, False, "auto")
    add_requests(workspace, rows, NEW_ROWS)
    before = load_state(workspace, "made")
    assert before is not None
    runs: dict[str, tuple[dict[str, Any], LatencyModel]] = {}
    saved = {path: path.read_bytes() for path in _kept(workspace)}
    for strategy in ("auto", "continue", "window", "refit"):
        _restore(workspace, saved)
        runs[strategy] = called(home, True, strategy), newest_model(workspace)
    runs["full"] = called(home, False, "auto"), newest_model(workspace)
    add_requests(workspace, rows + NEW_ROWS, NEW_ROWS)
    state = load_state(workspace, "made")
    assert state is not None
    following = load_new_data(workspace, "made", state.seen[TARGET], state.nature, (TARGET,)).rows[TARGET]
    full_cpu_s, full = runs["full"][0]["cpu_s"], measured(runs["full"][1], following)
    lines = []
    for name, (took, model) in runs.items():
        loss, share = measured(model, following), took["cpu_s"] / full_cpu_s
        met = "" if name == "full" else _met(share <= MOST_SHARE and loss.mae_ms <= MOST_LOSS * full.mae_ms)
        lines.append(
            [
                f"{name} ({took['mode']})",
                f"{took['wall_s']:.1f} ({took['cpu_s']:.1f})",
                f"{share:.1%}",
                f"{took['peak_mib']:,.0f}",
                f"{loss.mae_ms:.1f}",
                f"{loss.mae_ms / full.mae_ms - 1:+.2%}",
                f"{loss.log_loss:.4f}",
                f"{loss.pinball_ms:.1f}",
                met,
            ]
        )
    target = f"<= {MOST_SHARE:.0%} of the time, <= +{MOST_LOSS - 1:.0%} loss"
    later = f"MAE ms on the next {NEW_ROWS:,}"
    head = ["training", "seconds (CPU)", "of full", "peak MiB", later, "to full", "log loss", "P90 pinball ms", target]
    yield table(head, lines)
    yield (
        f"The first full training took {first['wall_s']:.1f} s ({first['cpu_s']:.1f}). "
        f"Incremental read: {runs['continue'][0]['notes'].get('read', 'nothing')}. Auto: {runs['auto'][0]['reason']}.\n"
    )


def _compile(home: Path) -> None:
    """Train once in every way, so that no call that is measured has to compile."""
    workspace = Workspace.open(home)
    add_requests(workspace, 0, 2000)
    called(home, False, "auto")
    add_requests(workspace, 2000, 1000)
    called(home, True, "auto")


def _kept(workspace: Workspace) -> list[Path]:
    """List what training writes, but MLflow's."""
    return [path for folder in ("models", "refresh") for path in (workspace.home / folder).rglob("*") if path.is_file()]


def _restore(workspace: Workspace, saved: dict[Path, bytes]) -> None:
    for path in _kept(workspace):
        if path not in saved:
            path.unlink()
    for path, content in saved.items():
        path.write_bytes(content)


def _met(held: bool) -> str:
    return "met" if held else "missed"


def fit_section(rows: Rows, repeats: int) -> Iterator[str]:
    """Yield the lines of (b)."""
    parameters = Parameters()
    matrix = matrix_of(rows, parameters)
    runs: list[tuple[Cost, Cost]] = []
    for _ in range(repeats):
        runs.append((cost_of(lambda: bare(*matrix, parameters)), cost_of(lambda: fit(rows, TARGET, parameters, 0))))
    base, ours = middle(run[0] for run in runs), middle(run[1] for run in runs)
    ratio = statistics.median(mine.cpu_s / theirs.cpu_s for theirs, mine in runs)
    wall = statistics.median(mine.wall_s / theirs.wall_s for theirs, mine in runs)
    yield table(
        ["", "seconds (CPU)", "ratio (CPU)", f"<= {MOST_OVERHEAD} x"],
        [
            ["bare lightgbm.train: mean and heads", f"{base.wall_s:.2f} ({base.cpu_s:.2f})", "", ""],
            ["fit: baseline, mean, heads", f"{ours.wall_s:.2f} ({ours.cpu_s:.2f})", f"{wall:.2f} x ({ratio:.2f} x)",
             _met(ratio <= MOST_OVERHEAD)],
        ],
    )  # fmt: skip
    matrix_size = f"{len(rows):,} rows × {len(parameters.features)} features"
    yield f"{matrix_size}, {parameters.rounds} rounds, medians of {repeats} pairs.\n"


def main() -> None:
    """Run all sections and print each as it ends."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--fit-rows", type=int, default=FIT_ROWS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sections", default="abcd")
    parser.add_argument("--write", type=Path, help="a page to write, as docs/training.md")
    parser.add_argument("--child", nargs=2, metavar=("HOME", "STRATEGY"), help=argparse.SUPPRESS)
    parser.add_argument("--incremental", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(Path(asked.child[0]), asked.incremental, asked.child[1])
        return
    machine = f"a shared machine of {os.cpu_count()} {platform.machine()} cores"
    head = HEAD.format(lightgbm=version("lightgbm"), python=platform.python_version(), machine=machine, target=TARGET)
    parts = [head]
    print(head, flush=True)
    with TemporaryDirectory() as folder:
        home = Path(folder)
        sections: dict[str, tuple[str, Callable[[], Iterator[str]]]] = {
            "a": ("## a. What is new, beside all of it\n", lambda: refresh_section(asked.rows, home)),
            "b": (
                "## b. A fit, beside bare boosters\n",
                lambda: fit_section(fit_rows(asked.fit_rows, home), asked.repeats),
            ),
            "c": ("## c. Strategies, batch by batch\n", strategies_section),
            "d": ("## d. What a stated P90 covers through a change\n", coverage_section),
        }
        for letter in asked.sections:
            title, lines = sections[letter]
            for part in _each(title, lines):
                print(part, flush=True)
                parts.append(part)
    if asked.write:
        asked.write.write_text("\n".join(parts), encoding="utf-8")


def _each(title: str, lines: Callable[[], Iterator[str]]) -> Iterator[str]:
    yield title
    yield from lines()


def fit_rows(count: int, home: Path) -> Rows:
    """Return rows of the generated store, made if need be."""
    workspace = Workspace.open(home / "fit")
    add_requests(workspace, 0, count)
    return load_training_data(workspace, "made", (TARGET,)).rows[TARGET]


if __name__ == "__main__":
    main()
