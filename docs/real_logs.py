"""Everything on real logs, as tables: ``python docs/real_logs.py TRACES > docs/results.md``.

TRACES holds ``lodestar/sharing09``, ``lodestar/sharing47`` and ``mooncake``: see ``tests/conftest.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lodestar.data.ingest import ingest
from lodestar.data.workspace import Workspace
from lodestar.models.train import train
from lodestar.pipeline.replay.policies import POLICIES
from lodestar.pipeline.replay.replay import Settings, replay
from lodestar.pipeline.stages import trained_model

NAMES = [policy.name for policy in POLICIES]
INTRODUCTION = """# Results on real logs

Printed by `python docs/real_logs.py TRACES`. `sharing09` and `sharing47` are the logs of one cluster of 7 engines that
served the same requests under three routers: `random`, `prefix` (AIBrix prefix-cache) and `rl` (an early learned
router). Everything is fitted to `random` alone, whose log has no arrival times. One set of defaults serves all; the
predictor's terms and parameters, the weak prior of the calibration and the rules of reconstruction were chosen with
these logs in view, so expect somewhat larger errors on others. Prefix groups are inferred from the hit ratios of all
arms that the workspace holds but the one that is measured.
"""


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    lines = [list(head), *(list(map(str, row)) for row in rows)]
    lines.insert(1, ["---"] + ["---:"] * (len(lines[0]) - 1))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def accuracy(reports: dict[str, dict[str, Any]]) -> str:
    """Return how well the predictors do on the last 30 % of each log."""
    rows = []
    for dataset, report in reports.items():
        for target, found in report["targets"].items():
            for name in ("model", "linear", "constant"):
                score = found["metrics"][name]
                rows.append(
                    (dataset, target, name, f"{score['mae_ms']:,.0f}", f"{score['mape']:.1%}", f"{score['r2']:.3f}",
                     f"{score['r2_log']:.3f}")
                )  # fmt: skip
    return table(("log", "target", "predictor", "MAE ms", "MAPE", "R²", "R² of log"), rows)


def predictions(documents: dict[str, list[dict[str, Any]]]) -> str:
    """Return predicted beside measured TTFT of the other arms: by the policy that ran there, and by its own choices."""
    rows = []
    for sharing, replays in documents.items():
        for row in (row for document in replays for row in document["measured"]):
            ran = row["measured_dataset"].split("-")[1]
            replayed = "its own choices" if row["policy"].startswith("choices") else row["policy"]
            if replayed not in ("its own choices", {"prefix": "aibrix-prefix-cache"}.get(ran)):
                continue
            told, true = row["predicted_ttft_ms"], row["ttft_ms"]
            rows.append(
                (sharing, ran, replayed,
                 f"{told['mean']:,.0f}", f"{true['mean']:,.0f}", f"{row['error_mean']:+.1%}",
                 f"{told['p99']:,.0f}", f"{true['p99']:,.0f}", f"{row['error_p99']:+.1%}")
            )  # fmt: skip
    head = ("fitted to", "arm", "replayed", "mean ms", "measured", "error", "P99 ms", "measured", "error")
    return table(head, rows)


def policy_rows(documents: dict[str, dict[str, Any]]) -> str:
    """Return each policy's replayed latencies."""
    rows = []
    for dataset, document in documents.items():
        for row in document["policies"]:
            ttft, (low, high) = row["ttft_ms"], row["ttft_ms"]["ci95"]
            rows.append(
                (dataset, row["policy"], f"{ttft['mean']:,.0f}", f"{low:,.0f}–{high:,.0f}", f"{ttft['p50']:,.0f}",
                 f"{ttft['p99']:,.0f}", f"{row['tpot_ms']['mean']:,.1f}", f"{row['e2e_ms']['mean']:,.0f}",
                 f"{row['hit_ratio']:.1%}", document["trust"]["verdict"])
            )  # fmt: skip
    head = ("log", "policy", "TTFT mean ms", "95 %", "P50", "P99", "TPOT ms", "E2E ms", "cache hits", "verdict")
    return table(head, rows)


def main(traces: Path) -> None:
    """Print the document."""
    print(INTRODUCTION)
    reports, measured, replays, timed = {}, {}, {}, {}
    with TemporaryDirectory() as folder:
        workspace = Workspace.open(Path(folder))
        for sharing in ("09", "47"):
            for arm in ("random", "prefix", "rl"):
                ingest(workspace, [traces / "lodestar" / f"sharing{sharing}" / f"{arm}.csv.gz"], f"s{sharing}-{arm}")
            dataset = f"s{sharing}-random"
            reports[dataset] = train(workspace, dataset).to_dict()
            model = trained_model(workspace, dataset)
            found = [
                replay(workspace, dataset, Settings(NAMES, measured=f"s{sharing}-{arm}"), model).document
                for arm in ("prefix", "rl")
            ]
            measured[f"sharing{sharing}"], replays[dataset] = found, found[0]
        for arm in ("prefix", "rl"):
            ingest(workspace, [traces / "lodestar" / "sharing09" / f"{arm}.klog.gz"], f"klog-{arm}")
        for arm in ("prefix", "rl"):
            settings = Settings(["aibrix-prefix-cache"], measured="klog-prefix")
            found = replay(workspace, f"klog-{arm}", settings).document
            timed[f"{arm}, {found['trust']['verdict']}"] = [found]
        ingest(workspace, [traces / "mooncake" / "conversation_trace.jsonl.gz"], "mooncake")
        replays["mooncake"] = replay(workspace, "mooncake", Settings(NAMES[:-1])).document
    print("## Predictors, on the last 30 % of each log\n")
    print(accuracy(reports))
    print("## Replayed from `random`, beside what the other arms measured: TTFT\n")
    print(predictions(measured))
    print("*Its own choices* sends each request where that arm's log sent it, whatever policy that was.\n")
    print("The same prediction from logs of sharing09 that have arrival times (fitted to the arm and verdict named):\n")
    print(predictions(timed))
    print("## Policies, closed loop\n")
    print(policy_rows(replays))
    for dataset, document in replays.items():
        reasons = "; ".join(document["trust"]["reasons"]) or "all gates passed"
        print(f"- {dataset}: engine {document['engine']['source']}; {document['trust']['verdict']}: {reasons}.")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
