"""The commands of the public traces, from the catalogue to a file in the workspace and the next command to run."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lodestar.data.errors import ConfigError, DataError
from lodestar.data.ingest import ingest
from lodestar.data.traces.catalogue import catalogue
from lodestar.data.workspace import Workspace
from lodestar.pipeline.traces_cli import traces_app


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def mirror(traces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server of the real Azure and Mooncake files, laid out as the traces of a workspace are."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for folder, real in (("azure-2023-conversation", "azure"), ("mooncake-conversation", "mooncake")):
        to = tmp_path / "mirror" / folder / catalogue()[folder].file
        to.parent.mkdir(parents=True)
        to.write_bytes(gzip.decompress((traces / real / f"{to.name}.gz").read_bytes()))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "mirror"))) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def traces_command(home: Path, *arguments: str) -> Result:
    return CliRunner().invoke(traces_app, [*arguments, "--home", str(home)], env={"COLUMNS": "80"})


@pytest.mark.parametrize("command", ["list", "get"])
def test_every_command_explains_itself_and_takes_the_common_options(command: str) -> None:
    shown = CliRunner().invoke(traces_app, [command, "--help"]).output
    for option in ("--home", "--json", "--seed"):
        assert option in shown


def test_without_a_command_the_help_is_shown() -> None:
    shown = CliRunner().invoke(traces_app, [])
    assert shown.exit_code == 0
    assert "List the public traces" in shown.output


def test_the_list_names_every_trace_uncut_in_a_narrow_terminal(tmp_path: Path) -> None:
    shown = traces_command(tmp_path, "list").stdout
    assert [name for name in catalogue() if f" {name} " not in shown] == []
    assert "no checksum known" in shown
    assert "in the workspace" not in shown


def test_the_list_as_json_is_the_whole_catalogue(tmp_path: Path) -> None:
    rows = json.loads(traces_command(tmp_path, "list", "--json").stdout)
    assert [row["name"] for row in rows] == list(catalogue())
    azure = next(row for row in rows if row["name"] == "azure-2023-conversation")
    assert (azure["licence"], azure["size_bytes"], azure["pinned"], azure["path"]) == ("CC-BY-4.0", 719188, True, None)


@pytest.mark.parametrize(("name", "requests"), [("azure-2023-conversation", 19366), ("mooncake-conversation", 12031)])
def test_what_get_brings_is_what_ingest_reads(tmp_path: Path, mirror: str, name: str, requests: int) -> None:
    done = traces_command(tmp_path, "get", name, "--from", mirror, "--json")
    assert done.exit_code == 0, done.output
    fetched = json.loads(done.stdout)
    assert fetched["next"] == f"lodestar ingest {fetched['path']} --dataset {name}"
    report = ingest(Workspace.open(tmp_path), [Path(fetched["path"])], name).to_dict()
    assert [(source["format"], source["rows_stored"]) for source in report["sources"]] == [
        (catalogue()[name].format, requests)
    ]
    assert "in the workspace" in traces_command(tmp_path, "list").stdout


def test_get_tells_file_check_and_next_step(tmp_path: Path, mirror: str) -> None:
    shown = traces_command(tmp_path, "get", "azure-2023-conversation", "--from", mirror).stdout
    for said in ("719,188", "verified against the catalogue", "attribution: Patel", "lodestar ingest"):
        assert said in " ".join(shown.split())


def test_errors_are_left_to_the_command_line_as_ours(tmp_path: Path, mirror: str) -> None:
    absent = traces_command(tmp_path, "get", "mooncake-toolagent", "--from", mirror)
    assert isinstance(absent.exception, DataError)
    assert "says 404" in str(absent.exception)
    assert isinstance(traces_command(tmp_path, "get", "mooncake").exception, ConfigError)


def test_defining_the_commands_imports_nothing_heavy() -> None:
    look = "import sys, lodestar.pipeline.traces_cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert {"polars", "duckdb", "numpy", "rich.table", "urllib.request"}.isdisjoint(done.stdout.split())
