"""Measured arms of real clusters: what a cluster fitted to one router's log foretells of the others' logs.

Everything is fitted to the log of the `random` arm alone, prefix groups included: the other arms are withheld, and only
set beside the predictions. Each is replayed by its own choices, and by its policy where that is known by name; the
one-step estimates of the same policy stand beside it, to show what they are as a performance.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import numpy as np
from scipy.stats import kendalltau

from lodestar.data.ingest import ingest
from lodestar.data.workspace import Workspace
from lodestar.pipeline.replay.replay import Settings, replay

__all__ = ["CLUSTERS", "OWN_CHOICES", "ArmsOf", "measured_arms", "traces_folder", "why_not"]

Progress = Callable[[str, int, int], None]

FITTED_TO: Final = "random"
OWN_CHOICES: Final = "its own choices"


class ArmsOf(NamedTuple):
    """Logs of one cluster that served the same requests under several routers.

    Attributes:
        files: pattern of the files of an arm, below the folder of traces.
        arms: other than `random` → the policy that ran there, None: not one of ours.
    """

    files: str
    arms: dict[str, str | None]


CLUSTERS: Final[dict[str, ArmsOf]] = {
    "sharing09": ArmsOf("lodestar/sharing09/{arm}.csv.gz", {"prefix": "aibrix-prefix-cache", "rl": None}),
    "sharing47": ArmsOf("lodestar/sharing47/{arm}.csv.gz", {"prefix": "aibrix-prefix-cache", "rl": None}),
    "aibrix": ArmsOf(
        "aibrix/{arm}",
        {"least-request": "least-request", "prefix-cache": "aibrix-prefix-cache", "prefix-cache-and-load": None},
    ),
}


def traces_folder() -> Path:
    """Return the folder of real logs: $LODESTAR_TRACES, or else ../shared/traces."""
    named = os.environ.get("LODESTAR_TRACES")
    return Path(named) if named else Path("..", "shared", "traces")


def measured_arms(
    traces: Path | None = None,
    clusters: Sequence[str] = tuple(CLUSTERS),
    seeds: int = 20,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Foretell every measured arm from the `random` arm of its cluster.

    Args:
        traces: folder of real logs; None: `traces_folder`.
        clusters: of `CLUSTERS`.
        seeds: replays of each arm.
        seed: of the first.
        progress: told 'measured arms', how many clusters are done, of how many.

    Returns:
        'rows', one an arm and way to replay it, errors being predicted / measured − 1; 'summary', one a cluster, with
        the verdict of the trust gates and Kendall's τ of the arms' mean TTFT, `random` among them, each replayed by its
        own choices; 'skipped', why a cluster is not there.
    """
    folder = traces or traces_folder()
    rows: list[dict[str, Any]] = []
    summary: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    for done, name in enumerate(clusters, 1):
        if why := why_not(folder, name):
            skipped[name] = why
        else:
            document = _replayed(folder, name, seeds, seed)
            of_arms = list(_rows(name, document))
            rows += of_arms
            summary.append(_summary(name, document, of_arms))
        if progress:
            progress("measured arms", done, len(clusters))
    return {"seeds": seeds, "rows": rows, "summary": summary, "skipped": skipped}


def why_not(folder: Path, cluster: str) -> str | None:
    """Say why a cluster cannot be looked at: a log of it that is not there; None where it can.

    >>> why_not(Path("nowhere"), "sharing09").split(";")[0]
    'nowhere/lodestar/sharing09/random.csv.gz is not there'
    """
    lacking = [path for path in _files(folder, CLUSTERS[cluster]).values() if not path.exists()]
    if not lacking:
        return None
    return f"{lacking[0]} is not there; name the folder of real logs by --traces or LODESTAR_TRACES"


def _files(folder: Path, cluster: ArmsOf) -> dict[str, Path]:
    return {arm: folder / cluster.files.format(arm=arm) for arm in (FITTED_TO, *cluster.arms)}


def _replayed(folder: Path, name: str, seeds: int, seed: int) -> dict[str, Any]:
    """Judge the first arm while no other is there, then replay it before the others, which tell nothing to its fit.

    Trust gates compare with every arm that a workspace holds: with the others, the verdict would know what is foretold.
    """
    cluster, fitted_to = CLUSTERS[name], _dataset(name, FITTED_TO)
    files = _files(folder, cluster)
    policies = [FITTED_TO, *dict.fromkeys(policy for policy in cluster.arms.values() if policy)]
    with TemporaryDirectory() as home:
        workspace = Workspace.open(Path(home))
        ingest(workspace, [files.pop(FITTED_TO)], fitted_to)
        trust = replay(workspace, fitted_to, Settings(policies, seeds=1, seed=seed)).document["trust"]
        for arm, path in files.items():
            ingest(workspace, [path], _dataset(name, arm))
        measured = tuple(_dataset(name, arm) for arm in cluster.arms)
        settings = Settings(policies, seeds=seeds, seed=seed, measured=measured)
        return replay(workspace, fitted_to, settings).document | {"trust": trust}


def _dataset(cluster: str, arm: str) -> str:
    return f"{cluster}-{arm}"


def _rows(name: str, document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Take of the document what was replayed as it ran: an arm's own choices, and the policy that it is known to be."""
    for arm, policy in CLUSTERS[name].arms.items():
        dataset = _dataset(name, arm)
        ran = {f"choices of {dataset}": OWN_CHOICES, **({policy: policy} if policy else {})}
        for row in document["measured"]:
            if row["measured_dataset"] != dataset or row["policy"] not in ran:
                continue
            truth, told = row["ttft_ms"], row["predicted_ttft_ms"]
            interval = row["predicted_one_run95_ms"]["mean"]
            yield {
                "cluster": name,
                "arm": arm,
                "replayed": ran[row["policy"]],
                "requests": row["requests"],
                "measured_mean_ms": truth["mean"],
                "predicted_mean_ms": told["mean"],
                "error_mean": row["error_mean"],
                "error_mean_hits_known": row.get("error_mean_hits_known"),
                "measured_p99_ms": truth["p99"],
                "predicted_p99_ms": told["p99"],
                "error_p99": row["error_p99"],
                "one_run95_mean_ms": interval,
                "in_interval": None if interval is None else bool(interval[0] <= truth["mean"] <= interval[1]),
                "one_step_error": {
                    each["estimator"]: each["value_ms"] / truth["mean"] - 1
                    for each in document["one_step"]
                    if each["policy"] == row["policy"]
                },
            }


def _summary(name: str, document: dict[str, Any], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    order, trust = document["measured_order"], document["trust"]
    tau = None
    if order is not None:
        arms = list(order["measured_ms"])
        of_arms = ([order[side][arm] for arm in arms] for side in ("measured_ms", "predicted_ms"))
        tau = float(kendalltau(*of_arms).statistic)
    errors = [abs(row["error_mean"]) for row in rows if row["error_mean"] is not None]
    steps = [abs(error) for row in rows for error in row["one_step_error"].values()]
    return {
        "cluster": name,
        "verdict": trust["verdict"],
        "reasons": trust["reasons"],
        "kendall_tau": tau,
        "order": order,
        "mean_error": float(np.mean(errors)) if errors else None,
        "one_step_mean_error": float(np.mean(steps)) if steps else None,
        "one_step_notes": document["one_step_notes"],
    }
