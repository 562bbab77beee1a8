"""The process that learns, at the lowest priority: ``python -m lodestar.pipeline.serve.learner_child DIRECTORY``.

It steps back before it imports anything large: that alone would take a second of the server's core.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Final

__all__ = ["LEAST_PRIORITY", "step_back"]

LEAST_PRIORITY: Final = 19


def step_back() -> None:
    """Run only where the server leaves its core idle, unless a higher priority was asked for."""
    if os.nice(0) >= LEAST_PRIORITY and hasattr(os, "SCHED_IDLE"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


if __name__ == "__main__":
    step_back()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this process
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    from lodestar.pipeline.serve.trainer import Trainer

    Trainer(Path(sys.argv[1])).answer(sys.stdin.buffer, answers)
