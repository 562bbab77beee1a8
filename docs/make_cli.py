"""Write the reference of all commands from their ``--help``: ``python docs/make_cli.py > docs/cli.md``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

from lodestar.pipeline.cli import app


def commands(group: Any, above: str = "") -> Iterator[str]:
    """Yield every command and subcommand, in the order in which they are declared."""
    for name, command in group.commands.items():
        yield f"{above}{name}"
        if hasattr(command, "commands"):
            yield from commands(command, f"{above}{name} ")


def reference() -> str:
    """Return the reference as Markdown."""
    os.environ.update(COLUMNS="100", TERMINAL_WIDTH="100", NO_COLOR="1")
    os.environ.pop("LODESTAR_HOME", None)
    parts = ["# Commands\n\nMade from `--help` by `python docs/make_cli.py > docs/cli.md`.\n"]
    for command in ("", *commands(get_command(app))):
        shown = CliRunner().invoke(app, [*command.split(), "--help"], prog_name="lodestar", terminal_width=100)
        title = f"lodestar {command}".strip()
        text = "\n".join(line.rstrip() for line in shown.output.strip().splitlines())
        parts.append(f"## {title}\n\n```\n{text}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(reference(), end="")
