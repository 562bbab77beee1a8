"""Steps of commands that join stages: they belong to no stage alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lodestar.data.errors import ConfigError, unknown
from lodestar.data.inspect import inspect_dataset
from lodestar.data.reasons import Reason
from lodestar.data.rejects import rejected_rows
from lodestar.data.workspace import Workspace
from lodestar.reports.html import write_report
from lodestar.reports.mlflow_log import log_replay
from lodestar.reports.result import latest_replay

__all__ = ["inspected", "report_latest"]


def report_latest(workspace: Workspace, to: Path | None) -> dict[str, Any]:
    """Write the last replay's report and log both in MLflow."""
    replay_dir = latest_replay(workspace)
    html = write_report(replay_dir, to or replay_dir / "report.html")
    return {"report": str(html), "directory": str(replay_dir), "run_id": log_replay(workspace, replay_dir, html)}


def inspected(workspace: Workspace, dataset: str, rejects: bool, reason: str | None, limit: int) -> dict[str, Any]:
    """Summarise a dataset, or list its refused rows."""
    if not rejects and reason is not None:
        raise ConfigError("--reason chooses among refused rows; expected --rejects with it. Add it")
    if reason is not None and reason not in {str(known) for known in Reason}:
        raise unknown("reason", reason, map(str, Reason))
    return rejected_rows(workspace, dataset, limit, reason) if rejects else inspect_dataset(workspace, dataset)
