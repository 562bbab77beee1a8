"""The command line as people and scripts use it: real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

HEAVY = ("polars", "duckdb", "lightgbm", "mlflow", "optuna", "numba", "numpy", "pandas", "plotly")


def lodestar(*arguments: str, home: Path | None = None, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command and expect its exit code."""
    environment = {key: value for key, value in os.environ.items() if key != "LODESTAR_HOME"}
    if home:
        environment["LODESTAR_HOME"] = str(home)
    done = subprocess.run(
        [sys.executable, "-m", "lodestar", *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == code, done.stderr
    return done


COMMANDS = (
    "ingest",
    "inspect",
    "drop",
    "train",
    "tune",
    "evaluate",
    "calibrate",
    "replay",
    "report",
    "ship",
    "simulate",
    "ui",
    "demo",
    "formats",
    "engines",
    "policies",
    "features",
)


def test_help_lists_every_command_with_a_sentence() -> None:
    shown = lodestar("--help").stdout
    for command in COMMANDS:
        lines = [line for line in shown.splitlines() if line.strip().startswith(f"{command} ")]
        assert len(lines) == 1, command
        assert len(lines[0].split()) > 3, command


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_takes_the_common_options(command: str) -> None:
    shown = lodestar(command, "--help").stdout
    for option in ("--home", "--json", "--seed"):
        assert option in shown


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; sys.argv=['lodestar','--help']\n"
    code += "from lodestar.pipeline.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    code += f"print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["inspect", "nothing"], "dataset 'nothing' is not known"),
        (["replay", "nothing", "--policy", "random"], "dataset 'nothing' is not known"),
        (["train", "nothing"], "dataset 'nothing' is not known"),
        (["report"], "lodestar replay"),
        (["ship"], "ship needs DATASET and --to PLACE"),
        (["ship", "nothing", "--to", "artifact"], "Run: lodestar train nothing"),
        (["ship", "--check", "nowhere"], "nowhere"),
        (["ingest", "missing.csv", "--dataset", "d"], "missing.csv"),
        (["ingest", "missing.csv"], "Missing option '--dataset'"),
        (["replay", "d"], "Missing option '--policy'. Run lodestar replay --help"),
        (["replay", "d", "--policy", "random", "--seeds", "0"], "or equal to 1. Run lodestar replay --help"),
        (["estimate", "d", "--policy", "random", "--blok"], "No such option: --blok (Possible options: --blocks)"),
        (["estimate", "d", "--policy", "random", "--slo-ttft-ms", "0"], "--slo-ttft-ms is 0; expected more than 0"),
        (["estimate", "d", "--policy", "random", "--slo-ttft-ms", "inf"], "--slo-ttft-ms is inf; expected more than 0"),
        (["validate", "--part", "measured-arms", "--traces", "none"], "none/lodestar/sharing09/random.csv.gz is not"),
        (["nonsense"], "No such command 'nonsense'"),
        (["ship", "--check", "/proc/none"], "/proc/none"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = lodestar(*arguments, home=tmp_path / "home", code=2)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("lodestar: ")
    assert said in done.stderr


def test_an_unknown_policy_is_refused_before_any_work(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"timestamp": 0, "input_length": 512, "output_length": 2, "hash_ids": [1]}\n')
    lodestar("ingest", str(log), "--dataset", "d", home=tmp_path)
    assert "did you mean 'random'" in lodestar("replay", "d", "--policy", "ramdom", home=tmp_path, code=2).stderr


def test_a_file_of_which_nothing_can_be_used_is_a_mistake(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"timestamp": 0, "input_length": 512, "output_length": -2, "hash_ids": [1]}\n')
    done = lodestar("ingest", str(log), "--dataset", "d", home=tmp_path, code=2)
    assert "none of its 1 rows could be used" in done.stderr


def test_a_report_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(
        "".join(
            json.dumps({"timestamp": i, "input_length": 512, "output_length": 2, "hash_ids": [i]}) + "\n"
            for i in range(50)
        )
    )
    lodestar("ingest", str(log), "--dataset", "d", home=tmp_path)
    lodestar("replay", "d", "--policy", "random", "--seeds", "1", home=tmp_path)
    done = lodestar("report", "--to", str(tmp_path), home=tmp_path, code=2)
    assert done.stderr.startswith(f"lodestar: {tmp_path}: Is a directory")
    said = lodestar("train", "d", home=tmp_path, code=2).stderr
    assert "none of its 50 requests can train" in said


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"--port {port}" in lodestar("ui", "--port", port, home=tmp_path, code=2).stderr


@pytest.mark.parametrize("command", ["formats", "policies", "features"])
def test_lists_are_json_on_request(command: str) -> None:
    rows = json.loads(lodestar(command, "--json").stdout)
    assert len(rows) > 3
    assert lodestar(command).stdout


@pytest.mark.slow
def test_the_demo_ends_with_report_artifact_and_runs(tmp_path: Path) -> None:
    done = lodestar("demo", "--requests", "900", "--json", home=tmp_path)
    document = json.loads(done.stdout)
    assert Path(document["report"]).read_text().startswith("<!doctype html>")
    assert json.loads(lodestar("ship", "--check", document["artifact"], "--json").stdout)["golden_rows"] > 0
    means = {row["policy"]: row["ttft_ms"]["mean"] for row in document["replay"]["policies"]}
    assert set(means) == {"random", "least-request", "aibrix-prefix-cache", "learned"}
    assert means["learned"] < means["random"]
    assert document["replay"]["trust"]["verdict"] in {"trusted", "untrusted"}


@pytest.mark.slow
def test_an_interrupted_search_says_so_in_one_line_and_goes_on(traces: Path, tmp_path: Path) -> None:
    log = traces / "lodestar" / "sharing47" / "random.csv.gz"
    lodestar("ingest", str(log), "--dataset", "d", home=tmp_path)
    command = [sys.executable, "-m", "lodestar", "tune", "d", "--trials", "2000", "--home", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as search:
        while not (journal := tmp_path / "studies.journal").exists() or journal.read_text().count("\n") < 120:
            time.sleep(0.2)
        search.send_signal(signal.SIGINT)
        printed, said = search.communicate(timeout=60)
    assert (printed, search.returncode) == ("", 130)
    assert said == "lodestar: interrupted; what was finished is kept\n"
    done = json.loads(lodestar("tune", "d", "--trials", "2", "--json", home=tmp_path).stdout)
    assert done["trials_before"] >= 2


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ui_serves_mlflow_on_loopback_until_interrupted(tmp_path: Path, how: signal.Signals) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "lodestar", "ui", "--port", str(port), "--home", str(tmp_path), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        printed = "".join(iter(server.stdout.readline, "}\n")) + "}"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=30) as answer:
            assert answer.read() == b"OK"
        server.send_signal(how)
        server.wait(60)
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
    assert json.loads(printed)["url"] == f"http://127.0.0.1:{port}"
    assert server.returncode == 0


@pytest.mark.slow
def test_the_whole_loop_on_a_real_log(traces: Path, tmp_path: Path) -> None:
    """The commands of the README, in their order, on a real log."""
    log = traces / "lodestar" / "sharing09" / "random.csv.gz"
    ingested = json.loads(lodestar("ingest", str(log), "--dataset", "s09", "--json", home=tmp_path).stdout)
    assert (ingested["rows_stored"], ingested["rows_rejected"]) == (2491, 0)
    again = json.loads(lodestar("ingest", str(log), "--dataset", "s09", "--json", home=tmp_path).stdout)
    assert again["rows_stored"] == 0
    assert json.loads(lodestar("inspect", "s09", "--json", home=tmp_path).stdout)
    trained = json.loads(lodestar("train", "s09", "--json", home=tmp_path).stdout)
    assert trained["targets"]["ttft_ms"]["metrics"]["model"]["r2_log"] >= 0.78
    same = json.loads(lodestar("train", "s09", "--incremental", "--json", home=tmp_path).stdout)
    assert same["targets"]["ttft_ms"]["mode"] == "unchanged"
    assert json.loads(lodestar("tune", "s09", "--trials", "1", "--json", home=tmp_path).stdout)
    policies = [word for name in ("random", "least-request", "learned") for word in ("--policy", name)]
    replayed = json.loads(lodestar("replay", "s09", *policies, "--seeds", "2", "--json", home=tmp_path).stdout)
    assert [row["policy"] for row in replayed["policies"]] == ["random", "least-request", "learned"]
    report = json.loads(lodestar("report", "--json", home=tmp_path).stdout)["report"]
    assert "learned" in Path(report).read_text()
    artifact = tmp_path / "artifact"
    lodestar("ship", "s09", "--to", str(artifact), home=tmp_path)
    lodestar("ship", "--check", str(artifact))
    model = artifact / "ttft_ms.txt"
    model.write_bytes(model.read_bytes().replace(b"tree", b"Tree", 1))
    assert "ttft_ms.txt" in lodestar("ship", "--check", str(artifact), code=2).stderr
