"""Run the demo and draw what it prints: ``python docs/demo_picture.py`` writes ``docs/demo.svg``."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI

from lodestar.data.workspace import Workspace
from lodestar.pipeline.demo import demo, demo_tables

# Without the web font, the picture needs nothing from the network.
FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


def main() -> None:
    """Write the picture beside this file."""
    console = Console(record=True, width=112, force_terminal=True, force_interactive=False)
    with TemporaryDirectory() as folder:
        home = Path(folder) / ".lodestar"
        done = demo(Workspace.open(home), 2500, 0, console)
        shown = {key: str(value).replace(f"{home.resolve()}/", ".lodestar/") if key in {"report", "artifact"} else value
                 for key, value in done.items()}  # fmt: skip
        console.print(demo_tables(shown))
    target = Path(__file__).with_name("demo.svg")
    console.save_svg(str(target), title="lodestar demo", theme=MONOKAI, code_format=FORMAT)


if __name__ == "__main__":
    main()
