"""Write the reference of all commands from their ``--help``: ``python docs/make_cli.py > docs/cli.md``."""

from __future__ import annotations

import os

from typer.testing import CliRunner

from lodestar.pipeline.cli import app

COMMANDS = (
    "ingest", "inspect", "drop", "train", "tune", "evaluate", "models", "models list", "models show", "models promote",
    "models rollback", "calibrate", "replay", "report", "ship", "simulate", "workload", "workload slice",
    "workload thin", "workload merge", "workload warp", "workload scale", "workload shift", "workload extend", "traces",
    "traces list", "traces get", "ui", "demo", "formats", "engines", "policies", "policies score",
    "features",
)  # fmt: skip


def reference() -> str:
    """Return the reference as Markdown."""
    os.environ.update(COLUMNS="100", TERMINAL_WIDTH="100", NO_COLOR="1")
    os.environ.pop("LODESTAR_HOME", None)
    parts = ["# Commands\n\nMade from `--help` by `python docs/make_cli.py > docs/cli.md`.\n"]
    for command in ("", *COMMANDS):
        shown = CliRunner().invoke(app, [*command.split(), "--help"], prog_name="lodestar", terminal_width=100)
        title = f"lodestar {command}".strip()
        text = "\n".join(line.rstrip() for line in shown.output.strip().splitlines())
        parts.append(f"## {title}\n\n```\n{text}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(reference(), end="")
