"""Steps of commands that join stages: they belong to no stage alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from lodestar.data.errors import ConfigError
from lodestar.data.workspace import Workspace
from lodestar.models.artifact import check, ship
from lodestar.models.latency import LatencyModel
from lodestar.reports.html import write_report
from lodestar.reports.mlflow_log import log_replay
from lodestar.reports.result import latest_replay

__all__ = ["check_or_ship", "report_latest", "serve_mlflow", "trained_model"]


def report_latest(workspace: Workspace, to: Path | None) -> dict[str, Any]:
    """Write the last replay's report and log both in MLflow."""
    replay_dir = latest_replay(workspace)
    html = write_report(replay_dir, to or replay_dir / "report.html")
    return {"report": str(html), "replay": str(replay_dir), "run_id": log_replay(workspace, replay_dir, html)}


def serve_mlflow(workspace: Workspace, port: int) -> int:
    """Run MLflow's server on the workspace until it ends; return its exit code."""
    arguments = {
        "--backend-store-uri": workspace.tracking_uri,
        "--default-artifact-root": workspace.mlflow_artifacts.as_uri(),
        "--host": "127.0.0.1",
        "--port": str(port),
        "--workers": "1",
    }
    command = [sys.executable, "-m", "mlflow", "server", *(word for pair in arguments.items() for word in pair)]
    return subprocess.call(command)
