"""Run the command line as ``python -m lodestar``."""

from __future__ import annotations

from lodestar.pipeline.cli import main

if __name__ == "__main__":
    main()
