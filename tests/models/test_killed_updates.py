from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from lodestar.data.log import RequestLog
from lodestar.data.workspace import Workspace
from lodestar.models.parameters import Parameters
from lodestar.models.refresh.chain import load_state
from lodestar.models.registry.current import load_challenger
from lodestar.models.train import train

TARGET = "tpot_ms"
UPDATE = """
import sys
from pathlib import Path
from lodestar.data.workspace import Workspace
from lodestar.models.train import train
print("begun", flush=True)
train(Workspace.open(Path(sys.argv[1])), "made", incremental=True, strategy="continue", targets=("tpot_ms",))
"""


@pytest.mark.slow
def test_updates_that_are_killed_at_any_moment_are_made_good(
    workspace: Workspace, make_log: Callable[..., RequestLog], add_log: Callable[[Workspace, RequestLog], None]
) -> None:
    add_log(workspace, make_log(400))
    train(workspace, "made", parameters=Parameters(rounds=20, min_data_in_leaf=20), targets=(TARGET,))
    words = [sys.executable, "-c", UPDATE, str(workspace.home)]
    seen, cost_s = 400, 1.0
    for share in (0.8,):
        add_log(workspace, make_log(260, first=seen))
        seen += 260
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(share * cost_s)
            child.send_signal(signal.SIGKILL)
        started = time.monotonic()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        cost_s = time.monotonic() - started
        state = load_state(workspace, "made")
        assert state is not None
        assert state.seen[TARGET].requests == seen
        assert not len(state.chains[TARGET].recent.pending)
        assert load_challenger(workspace, "made")[TARGET].record["requests_seen"] == seen
