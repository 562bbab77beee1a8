"""How good the latency predictor is, beside the models people use: ``python tests/bench/predictors.py TRACES``.

Prints the page ``docs/predictors.md``. Takes a few minutes on two cores.
"""

from __future__ import annotations

import math
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from predictor_models import OURS, PREDICTORS
from predictor_scores import BETTER, METRICS, RANKING, Score, score
from predictor_splits import Split, load_splits

from lodestar.data.schema import TPOT_MS, TTFT_MS
from lodestar.models.uncertainty.paired import paired_interval

Table = dict[str, dict[str, Score]]

HEAD = """# Predictors

Printed by `python tests/bench/predictors.py TRACES > docs/predictors.md`, in minutes on two cores; TRACES is a folder
with the real logs that [real_logs.py](real_logs.py) reads too.

Every predictor learns from the same rows, and is judged on the same later or other rows. Only requests that had
finished at a cut are learned from. One set of defaults serves all logs; the terms of the baseline, the features and the
parameters of ours were chosen with these logs in view, all of them together: expect larger errors on others.

The splits:

- **time**: the first 70 % of a log, judged on the rest. `sharing09` and `sharing47` are logs of 7 engines under uniform
  `random` routing, the others of llm-d's predictor (2 GPUs, order but no times).
- **router**: all of the `random` log, judged on the log of the same requests under another router.
- **workload**: all of one `random` log, judged on the other: other prompts, another share of common prefixes.
- **load**: the rows at or below the 70th percentile of the load (requests in flight, or running and waiting), judged on
  those above it: all of them beyond what was seen.

The predictors, the seeded ones trained three times with other seeds, the slow ones once:

{predictors}

A predictor without quantiles states its P90 by the ratio that its training errors stay below in 90 % of the rows. None
predicts less than the shortest latency it has seen.

**To read the tables**: the best of a row is bold. MAE and pinball loss are in ms, less is better; R² is of the
logarithm, where short and long latencies count alike; coverage is the share of rows at or below the stated P90, to be
0.90. It is of fixed models: in use, the P90 of ours is corrected as requests finish.
Behind ±, where several seeds were trained, stands half of the distance between the best and the worst.
"""
RANKING_HEAD = """## Ranking within a decision

Judged where the log chose uniformly at random, so that the chosen candidate is a fair sample of all. Its *measured
surplus* is the residual of its log TTFT from a regression on what the decision knew of the request and the cluster as
a whole (`lodestar.models.evaluation.ranking`). Spearman's correlation of that surplus with

- the **predicted ratio**: log of its prediction over the geometric mean of all candidates' predictions;
- the **predicted place**: the share of the other candidates that are predicted to be faster;
- the **predicted cost**: its prediction less the mean candidate's, in ms. This compares milliseconds with a logarithm:
  decisions of a loaded cluster outrank those of an idle one, so it favours predictors that flatten long queues.

**SNIPS** is the self-normalised estimate of mean TTFT, relative to the log's, if each decision alone had gone to the
candidate with the lowest prediction. It rests on the one decision in seven where the log did the same.
"""
TPOT_HEAD = """## TPOT

The time a token of the answer takes depends mostly on what arrives *after* the decision, which no router knows: all
predictors explain little. One thing was chosen for TPOT: a ceiling where steps are full, which bimodal alone shows.
"""
TITLES = {
    "mae_ms": "Mean absolute error, ms", "r2_log": "R² of the logarithm",
    "p90_pinball_ms": "Pinball loss of the P90, ms", "p90_coverage": "Coverage of the P90",
    "ratio_correlation": "Correlation with the predicted ratio",
    "rank_correlation": "Correlation with the predicted place",
    "cost_correlation": "Correlation with the predicted cost", "snips": "SNIPS of the predicted best",
}  # fmt: skip


def main(traces: Path) -> None:
    """Print the page."""
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")  # of each process below; they share the cores
    with TemporaryDirectory() as home, ProcessPoolExecutor(2, get_context("spawn")) as pool:
        splits = load_splits(traces, Path(home))
        jobs = [{name: pool.submit(score, split, name) for name in _able(split.target)} for split in splits]
        scores = [{name: future.result() for name, future in each.items()} for each in jobs]
    tables: dict[str, Table] = {TTFT_MS: {}, TPOT_MS: {}}
    for split, found in zip(splits, scores, strict=True):
        tables[split.target][_label(split)] = found
    print(HEAD.format(predictors=_predictors()))
    print("## TTFT\n")
    _print(METRICS, tables[TTFT_MS])
    print(RANKING_HEAD)
    _print(RANKING, tables[TTFT_MS])
    print(_verdict(tables[TTFT_MS], "TTFT"))
    print(TPOT_HEAD)
    _print(METRICS, tables[TPOT_MS])
    print(_verdict(tables[TPOT_MS], "TPOT"))


def _able(target: str) -> list[str]:
    return [name for name, which in PREDICTORS.items() if which.missing is None and target in which.targets]


def _print(metrics: tuple[str, ...], table: Table) -> None:
    for metric in metrics:
        print(_table(metric, table))


def _label(split: Split) -> str:
    return f"{split.kind} · {split.name} ({len(split.training)} → {len(split.testing)})"


def _predictors() -> str:
    return "\n".join(
        f"- **{name}**: {predictor.note}" + (f"; left out: {predictor.missing}" if predictor.missing else "")
        for name, predictor in PREDICTORS.items()
    )


def _table(metric: str, table: Table) -> str:
    """Return the Markdown table of one metric: a line a split, a column a predictor."""
    rows = {label: scores for label, scores in table.items() if metric in next(iter(scores.values())).mean}
    names = list(next(iter(rows.values())))
    lines = [["training rows → judged rows", *names], ["---", *["---:"] * len(names)]]
    for label, scores in rows.items():
        best = _best(metric, scores)
        lines.append([label, *(_cell(metric, scores[name], name in best) for name in names)])
    return f"### {TITLES[metric]}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _best(metric: str, scores: dict[str, Score]) -> set[str]:
    if metric not in BETTER:
        return set()
    known = {name: BETTER[metric] * found.mean[metric] for name, found in scores.items()}
    top = max(value for value in known.values() if not math.isnan(value))
    return {name for name, value in known.items() if value == top}


def _cell(metric: str, found: Score, best: bool) -> str:
    value, spread = found.mean[metric], found.spread.get(metric)
    if math.isnan(value):
        return "–"
    shown = _shown(metric, value) + ("" if spread is None else f" ± {_shown(metric, spread / 2)}")
    return f"**{shown}**" if best else shown


def _shown(metric: str, value: float) -> str:
    if not metric.endswith("_ms"):
        return f"{value:.3f}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _verdict(table: Table, target: str) -> str:
    """Say on how many splits ours is best, and list every figure in which another is ahead, with its interval."""
    lines = [f"## {target}: where {OURS} is not ahead\n"]
    lines.append(
        "Every figure in which another predictor is better in the mean over its seeds, with the difference of the\n"
        "first seeds (ours less the other's) and its 95 % interval, paired by row. Where that holds 0, it is not sure\n"
        "who leads.\n"
    )
    behind = [
        _behind(metric, label, scores, name)
        for metric in BETTER
        for label, scores in table.items()
        if metric in scores[OURS].mean
        for name in scores
        if BETTER[metric] * (scores[name].mean[metric] - scores[OURS].mean[metric]) > 0
    ]
    compared = sum(metric in scores[OURS].mean for metric in BETTER for scores in table.values())
    ahead = compared - len({line.split(" | ")[0] for line in behind})
    lines.append(f"It is ahead of all in {ahead} of {compared} rows of the tables above.\n")
    lines += [
        "| figure | split | ahead | ours | the other's | difference | 95 % interval |",
        "|---|---|---|--:|--:|--:|--:|",
    ]
    return "\n".join([*lines, *(line.replace(" @ ", " | ") for line in behind)]) + "\n"


def _behind(metric: str, label: str, scores: dict[str, Score], name: str) -> str:
    ours, other = scores[OURS], scores[name]
    found = paired_interval(ours.parts[metric] - other.parts[metric])
    numbers = (_shown(metric, value) for value in (ours.mean[metric], other.mean[metric], found.mean))
    low, high = _shown(metric, found.low), _shown(metric, found.high)
    sure = "" if found.excludes_zero else " (not sure)"
    return f"| {TITLES[metric]} @ {label} | {name} | {' | '.join(numbers)} | {low} to {high}{sure} |"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
