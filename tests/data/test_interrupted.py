"""An ingest that is killed, meets another one, or finds no room leaves the store as it was, and can be done again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lodestar.data.ingest import ingest
from lodestar.data.workspace import Workspace

KILLS = 50
ROWS = 400_000
OWNED = ("blocks", "sessions", "dispatches", "decisions", "candidates", "outcomes", "phases")

# Everything is imported once; each trial is a fork of that, so that 50 of them take seconds.
FORKED = """
import json, os, sys, traceback
from pathlib import Path
from lodestar.data import schema as s
from lodestar.data.ingest import ingest
from lodestar.data.formats import formats
from lodestar.data.store import open_store
from lodestar.data.workspace import Workspace

workspace = Workspace.open(Path(sys.argv[1]))
formats()

def store():
    ingest(workspace, [Path(sys.argv[2])], "killed")

def look():
    with open_store(workspace) as con:
        def count(query):
            return con.execute(query).fetchall()[0][0]
        print(json.dumps({
            "tables": {table: count(f"SELECT count(*) FROM {table}") for table in s.TABLES},
            "promised": count("SELECT coalesce(sum(stored), 0) FROM sources"),
            "refused": count("SELECT coalesce(sum(rejected), 0) FROM sources"),
            "orphans": [count(f"SELECT count(*) FROM {table} ANTI JOIN requests USING (request_index)")
                        for table in sys.argv[3:]],
        }), flush=True)

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            {"store": store, "look": look}[line.strip()]()
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A trace of several parts, with a row in every hundred that is refused."""
    row = "2024-05-10 00:{:02d}:{:02d}.{:03d},{},{}\n"
    rows = (
        row.format(i // 60_000 % 60, i // 1000 % 60, i % 1000, i % 7000 if i % 100 else 0, i % 300) for i in range(ROWS)
    )
    path = tmp_path / "trace.csv"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(rows))
    return path


class Forks:
    """Trials in a process of their own."""

    def __init__(self, home: Path, log: Path) -> None:
        words = [sys.executable, "-c", FORKED, str(home), str(log), *OWNED]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def say(self, what: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def look(self) -> dict[str, object]:
        self.say("look")
        told: dict[str, object] = json.loads(self.read())
        assert self.read() == "ended\n"
        return told


@pytest.fixture
def forks(tmp_path: Path, log: Path) -> Iterator[Forks]:
    trials = Forks(tmp_path / "home", log)
    yield trials
    trials.process.kill()
    trials.process.communicate()


@pytest.mark.slow
def test_killed_at_any_moment_the_store_is_as_before_or_complete(forks: Forks, log: Path, tmp_path: Path) -> None:
    database = tmp_path / "home" / "lodestar.duckdb"
    ingest(Workspace.open(database.parent), [log], "before")
    before, kept = forks.look(), database.read_bytes()
    took_s = []
    for _ in range(3):  # whatever else the machine does at first: most kills must come before the end
        database.write_bytes(kept)
        started = time.monotonic()
        forks.say("store")
        forks.read()
        took_s.append(time.monotonic() - started)
    whole_s, complete = min(took_s), forks.look()
    assert complete["promised"] == 2 * before["promised"]  # type: ignore[operator]
    moments, completed = random.Random(0), 0
    for _ in range(KILLS):
        database.write_bytes(kept)
        child = int(forks.say("store"))
        time.sleep(moments.uniform(0, whole_s))
        with suppress(ProcessLookupError):  # it was done already
            os.kill(child, signal.SIGKILL)
        assert forks.read() == "ended\n"
        found = forks.look()
        assert found in (before, complete)
        assert found["orphans"] == [0] * len(OWNED)
        completed += found == complete
    assert completed < KILLS / 2
    forks.say("store")
    forks.read()
    assert forks.look() == complete


def test_a_second_ingest_waits_and_says_for_whom(forks: Forks, log: Path, tmp_path: Path) -> None:
    child = int(forks.say("store"))
    deadline = time.monotonic() + 20
    while not (tmp_path / "home" / "lodestar.duckdb").exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(child, signal.SIGSTOP)
    words = [
        sys.executable,
        "-m",
        "lodestar",
        "ingest",
        str(log),
        "--dataset",
        "second",
        "--home",
        str(tmp_path / "home"),
    ]
    second = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert second.stderr is not None
    said = second.stderr.readline()
    os.kill(child, signal.SIGCONT)
    second.communicate(timeout=60)
    assert f"for process {child}" in said
    assert second.returncode == 0
    assert forks.read() == "ended\n"
    assert forks.look()["tables"]["sources"] == 2  # type: ignore[index]


@pytest.mark.parametrize("room", [300_000, 3_000_000])
def test_without_room_an_ingest_is_one_line_and_keeps_nothing(room: int, log: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    program = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room})); "
        "from lodestar.pipeline.cli import main; main()"
    )
    words = [sys.executable, "-c", program, "ingest", str(log), "--dataset", "d", "--home", str(home)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "File too large" in done.stderr
    assert "nothing of it was kept" in done.stderr or "cannot be opened" in done.stderr
    assert ingest(Workspace.open(home), [log], "d").rows_stored == ROWS - ROWS // 100
