"""A replay as an MLflow run: parameters, metrics by policy, and the report to read in MLflow's own page."""

from __future__ import annotations

import logging
import os
import posixpath
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

# Before MLflow is imported: a workspace keeps to itself, and stdout belongs to the command.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from lodestar.data.workspace import Workspace
from lodestar.reports.estimate_metrics import estimate_metrics
from lodestar.reports.evidence_metrics import evidence_metrics
from lodestar.reports.result import LATENCIES, QUANTILES, Policy, Result, read_result

__all__ = ["EXPERIMENT", "log_replay", "metric_name"]

EXPERIMENT: Final = "lodestar-replay"
METRICS_AT_ONCE: Final = 1000  # MLflow takes no more in one batch
_NOT_IN_NAMES: Final = re.compile(r"[^\w\-. :/]")
CHATTY: Final = ("mlflow", "alembic")


def log_replay(workspace: Workspace, replay_dir: Path, report_html: Path) -> str:
    """Log one replay as a run of the experiment ``lodestar-replay`` and return the run's id.

    Metrics are named ``<policy>/<what>_<unit>``, as in ``random/ttft_ms_mean``, after `metric_name`.

    Args:
        workspace: whose MLflow store takes the run; made on first use.
        replay_dir: the directory with ``result.json``, which is logged too.
        report_html: the file that `write_report` wrote.
    """
    result = read_result(replay_dir)
    with _quiet():
        client = MlflowClient(tracking_uri=workspace.tracking_uri)
        run = client.create_run(_experiment(client, workspace), run_name=replay_dir.name, tags=_tags(result))
        run_id: str = run.info.run_id
        client.log_batch(run_id, params=[Param(name, value) for name, value in _parameters(result).items()])
        now_ms = int(time.time() * 1000)
        metrics = [Metric(name, value, now_ms, 0) for name, value in _metrics(result).items()]
        for first in range(0, len(metrics), METRICS_AT_ONCE):
            client.log_batch(run_id, metrics=metrics[first : first + METRICS_AT_ONCE])
        client.log_artifact(run_id, str(report_html))
        client.log_artifact(run_id, str(replay_dir / "result.json"))
        if tuning := result.get("tuning"):
            rows = [{**row, "flags": "; ".join(row["flags"])} for row in tuning]
            client.log_table(run_id, {name: [row[name] for row in rows] for name in rows[0]}, "tuning.json")
        client.set_terminated(run_id)
    return run_id


def metric_name(text: str) -> str:
    """Return a name that MLflow takes: no other characters, and no path that would lead elsewhere.

    >>> metric_name("learned,epsilon=0.1/ess"), metric_name("../my/../router.py:Mine/ess"), metric_name("/r.py:M/ess")
    ('learned_epsilon_0.1/ess', 'router.py:Mine/ess', 'r.py:M/ess')
    """
    return posixpath.normpath(_NOT_IN_NAMES.sub("_", text)).lstrip("./")


def _experiment(client: MlflowClient, workspace: Workspace) -> str:
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    location = workspace.mlflow_artifacts / EXPERIMENT
    return str(client.create_experiment(EXPERIMENT, artifact_location=location.as_uri()))


def _tags(result: Result) -> dict[str, str]:
    """Say what the numbers claim, and for each policy whether they may be used and what must be known first."""
    trust = result["trust"]
    tags = {"estimand": result["estimand"], "dataset": result["dataset"], "verdict": trust["verdict"]}
    if trust["reasons"]:
        tags["reasons"] = "; ".join(trust["reasons"])
    for policy in result["policies"]:
        name = metric_name(policy["policy"])
        tags[f"{name}/verdict"] = trust["verdict"]
        if policy.get("flags"):
            tags[f"{name}/flags"] = "; ".join(policy["flags"])
    for row in result.get("one_step_diagnostics", []):
        tags[f"{metric_name(row['policy'])}/one_step"] = row["verdict"]["sentence"]
    return tags


def _parameters(result: Result) -> dict[str, str]:
    engine = result["engine"]
    plain = {
        "dataset": result["dataset"],
        "verdict": result["trust"]["verdict"],
        "baseline": result["baseline"],
        "seeds": result["seeds"],
        "requests": result["requests"],
        "instances": result["instances"],
        "engine/source": engine["source"],
        "engine/kv_capacity_tokens": engine["kv_capacity_tokens"],
    }
    if window := result.get("window"):
        plain |= {"warmup_ratio": window["warmup_ratio"], "requests_counted": window["requests"]}
    plain |= {f"slo/{name}": limit for name, limit in result["slo"].items()}
    plain |= {f"engine/{name}": value for name, value in engine["coefficients"].items()}
    return {name: str(value) for name, value in plain.items()}


def _metrics(result: Result) -> dict[str, float]:
    named = {
        f"{policy['policy']}/{name}": value
        for policy in result["policies"]
        for name, value in _metrics_of(policy).items()
    }
    named |= _tuning_metrics(result)
    named |= evidence_metrics(result)
    named |= estimate_metrics(result)
    named |= {f"{rank['policy']}/first_probability": rank["by_ttft_mean"][0] for rank in result.get("ranks", [])}
    return {metric_name(name): value for name, value in named.items()}


def _tuning_metrics(result: Result) -> dict[str, float]:
    """Return what each variant came to on the second part of the traffic."""
    return {
        f"{row['policy']}/{row['variant']}_ttft_ms_{which}": row[f"ttft_{which}_ms"]
        for row in result.get("tuning", [])
        for which in ("mean", "p99")
        if row[f"ttft_{which}_ms"] is not None
    }


def _metrics_of(policy: Policy) -> dict[str, float]:
    found: dict[str, float | None] = {}
    for latency in LATENCIES:
        found |= {f"{latency}_{quantile}": policy[latency][quantile] for quantile in QUANTILES}
        if policy["difference"] is not None:
            found[f"{latency}_difference"] = policy["difference"][latency]["mean"]
    if policy["difference"] is not None and (tail := policy["difference"].get("ttft_ms_p99")):
        found["ttft_ms_p99_difference"] = tail["value"]
    if growth := policy.get("queue_growth"):
        found["queue_growth_per_min"] = growth["requests_per_min"]
    found |= {
        "hit_ratio": policy["hit_ratio"],
        "router_hit_ratio": policy["router_hit_ratio"],
        "slo_attainment": policy["slo_attainment"],
        "inflight_imbalance": policy["inflight_imbalance"],
        "spread_over_seeds": policy["spread_over_seeds"],
        "cancelled_ratio": policy.get("cancelled_ratio"),
        "lost_ratio": policy.get("lost_ratio"),
    }
    return {name: value for name, value in found.items() if value is not None}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the making of MLflow's tables out of the user's terminal."""
    before = {name: logging.getLogger(name).level for name in CHATTY}
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
