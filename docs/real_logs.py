"""Everything on real logs, as tables: ``python docs/real_logs.py TRACES > docs/results.md``.

TRACES holds ``lodestar/sharing09``, ``lodestar/sharing47`` and ``mooncake``: see ``tests/conftest.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lodestar.data.ingest import ingest
from lodestar.data.workspace import Workspace
from lodestar.models.train import train
from lodestar.pipeline.calibrating import calibrate_dataset
from lodestar.pipeline.replay.replay import Settings, replay
from lodestar.pipeline.trained import trained_models

NAMES = ["random", "least-request", "aibrix-prefix-cache", "learned"]
INTRODUCTION = """# Results on real logs

Printed by `python docs/real_logs.py TRACES`. `sharing09` and `sharing47` are the logs of one cluster of 7 engines that
served the same requests under three routers: `random`, `prefix` (AIBrix prefix-cache) and `rl` (an early learned
router). Everything is fitted to `random` alone, whose log has no arrival times. One set of defaults serves all; the
predictor's terms and parameters, the weak prior of the calibration and the rules of reconstruction were chosen with
these logs in view, so expect somewhat larger errors on others. Latencies of other arms fit nothing.
"""
#: Folders of logs that tell of engines, beside the arms.
ENGINES = (
    *(f"aibrix/{arm}" for arm in ("random", "least-request", "prefix-cache", "prefix-cache-and-load")),
    *(f"vllm-timeseries/rtxpro6000-{model}" for model in ("Llama-3.1-8B", "Qwen3-32B")),
    *(f"vllm-otel/codellama-34b-{run}.*" for run in ("prefill", "train")),
)


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
            snipw, known = row["one_step_snipw_error"], row.get("error_mean_hits_known")
            rows.append(
                (sharing, ran, replayed,
                 f"{told['mean']:,.0f}", f"{true['mean']:,.0f}", f"{row['error_mean']:+.1%}",
                 f"{row['error_p50']:+.1%}", f"{row['error_p90']:+.1%}",
                 f"{told['p99']:,.0f}", f"{true['p99']:,.0f}", f"{row['error_p99']:+.1%}",
                 f"{row['predicted_router_hit_ratio']:.1%}", f"{row['router_hit_ratio']:.1%}",
                 "" if known is None else f"{known:+.1%}", "" if snipw is None else f"{snipw:+.1%}")
            )  # fmt: skip
    head = ("fitted to", "arm", "replayed", "mean ms", "measured", "error", "P50 error", "P90 error", "P99 ms",
            "measured", "error", "router hits", "measured", "mean error, its hits known",
            "one-step SNIPW, mean error")  # fmt: skip
    return table(head, rows)


def gates(documents: dict[str, dict[str, Any]]) -> str:
    """Return what the trust gates found in the forced replay of each log."""
    names = ("ttft_mean_error", "ttft_p50_error", "ttft_p99_error", "ttft_ks", "tpot_mean_error",
             "ttft_rank_correlation")  # fmt: skip
    rows = []
    for dataset, document in documents.items():
        found = {gate["name"]: gate["value"] for gate in document["trust"]["gates"]}
        values = [found.get(f"forced_{name}") for name in names]
        rows.append(
            (dataset, *("" if value is None else f"{value:.3f}" for value in values), document["trust"]["verdict"])
        )
    return table(("log", "TTFT mean error", "P50 error", "P99 error", "KS", "TPOT mean error", "rank correlation",
                  "verdict"), rows)  # fmt: skip


def engines(workspace: Workspace, traces: Path) -> str:
    """Calibrate to logs of other engines, and return the errors on what did not fit them, and the verdict on them."""
    rows = []
    for name in ENGINES:
        dataset = name.replace("/", "-").removesuffix(".*")
        ingest(workspace, sorted(traces.glob(name)), dataset)
        found = calibrate_dataset(workspace, dataset)
        held_out = found["held_out"]
        errors = [
            "" if (of := held_out.get(latency)) is None else f"{of[error]:+.1%}"
            for latency in ("ttft_ms", "tpot_ms")
            for error in ("mean_error", "p50_error", "p99_error")
        ]
        told = [coefficient for coefficient, known in found["identified"].items() if known]
        rows.append(
            (dataset, found["source"], f"{held_out['requests']}", *errors, ", ".join(told), found["trust"]["verdict"])
        )
    return table(("log", "fitted to", "held-out requests", "TTFT mean", "P50", "P99", "TPOT mean", "P50", "P99",
                  "identified", "verdict"), rows)  # fmt: skip


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
    reports, measured, alone, replays, timed, judged = {}, {}, {}, {}, {}, {}
    with TemporaryDirectory() as folder:
        workspace = Workspace.open(Path(folder))
        for sharing in ("09", "47"):
            for arm in ("random", "prefix", "rl"):
                ingest(workspace, [traces / "lodestar" / f"sharing{sharing}" / f"{arm}.csv.gz"], f"s{sharing}-{arm}")
            dataset = f"s{sharing}-random"
            reports[dataset] = train(workspace, dataset).to_dict()
            model = trained_models(workspace, dataset)
            found = [
                replay(workspace, dataset, Settings(NAMES, measured=(f"s{sharing}-{arm}",)), model).document
                for arm in ("prefix", "rl")
            ]
            measured[f"sharing{sharing}"], replays[dataset] = found, found[0]
        for sharing, arm in product(("09", "47"), ("prefix", "rl")):
            with TemporaryDirectory() as other:
                two = Workspace.open(Path(other))
                for name in ("random", arm):
                    path = traces / "lodestar" / f"sharing{sharing}" / f"{name}.csv.gz"
                    ingest(two, [path], f"s{sharing}-{name}")
                settings = Settings(["aibrix-prefix-cache"], measured=(f"s{sharing}-{arm}",))
                alone[f"sharing{sharing}, {arm}"] = [replay(two, f"s{sharing}-random", settings).document]
        for arm in ("prefix", "rl"):
            ingest(workspace, [traces / "lodestar" / "sharing09" / f"{arm}.klog.gz"], f"klog-{arm}")
        settings = Settings(["aibrix-prefix-cache"], arrivals_from="klog-rl", measured=("s09-prefix",))
        judged["s09-random, arrivals of rl's klog"] = replay(workspace, "s09-random", settings).document
        for arm in ("prefix", "rl"):
            settings = Settings(["aibrix-prefix-cache"], measured=("klog-prefix",))
            found = replay(workspace, f"klog-{arm}", settings).document
            timed[f"{arm}, {found['trust']['verdict']}"] = [found]
        ingest(workspace, [traces / "mooncake" / "conversation_trace.jsonl.gz"], "mooncake")
        others = engines(workspace, traces)
        replays["mooncake"] = replay(workspace, "mooncake", Settings(NAMES[:-1])).document
    print("## Predictors, on the last 30 % of each log\n")
    print(accuracy(reports))
    print("## Replayed from `random`, beside what the other arms measured: TTFT\n")
    print(predictions(measured))
    print("*Its own choices* sends each request where that arm's log sent it, whatever policy that was. *Its hits "
          "known*: the same, with the prefix groups that the arm's own hits tell as well.\n")  # fmt: skip
    print("Prefix groups above are inferred from the hit ratios of `random` and of the arm that is not measured. From "
          "`random` alone, in a workspace without that arm:\n")  # fmt: skip
    print(predictions(alone))
    print("With arrival times joined from the klog of `rl` (`--arrivals-from`):\n")
    print(predictions({"sharing09": list(judged.values())}))
    print("The same prediction from logs of sharing09 that have arrival times (fitted to the arm and verdict named):\n")
    print(predictions(timed))
    print("## Forced replay of the logged choices, on the last 30 % of each log\n")
    print(gates({**{name: each for name, each in replays.items() if name != "mooncake"}, **judged}))
    print("## Other engines: `lodestar calibrate`, the errors on the last 30 % of each log, and the verdict\n")
    print(others)
    print("## Policies, closed loop\n")
    print(policy_rows(replays))
    for dataset, document in replays.items():
        reasons = "; ".join(document["trust"]["reasons"]) or "all gates passed"
        print(f"- {dataset}: engine {document['engine']['source']}; {document['trust']['verdict']}: {reasons}.")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
