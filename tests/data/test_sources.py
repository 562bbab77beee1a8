"""What a path may name: files, directories, patterns and stdin, and all that is none of these."""

from __future__ import annotations

import gzip
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from lodestar.data.errors import DataError
from lodestar.data.ingest import IngestReport, ingest
from lodestar.data.store import open_store
from lodestar.data.workspace import Workspace
from seeds import SEEDS

LOG: Final = SEEDS["azure"][0]
AS_NOBODY: Final = """
import os, sys
from pathlib import Path
from lodestar.data.errors import LodestarError
from lodestar.data.storing.plan import plan
from lodestar.data.sources.source import sources_of

plan([])  # so that what reading needs is imported before it may not be read
os.setuid(65534)
try:
    with sources_of([Path(sys.argv[1])]) as sources:
        print(plan(sources))
except LodestarError as error:
    print(error)
"""


def in_one_line(error: pytest.ExceptionInfo[DataError]) -> str:
    (line,) = str(error.value).splitlines()
    return line


def put(folder: Path, content: bytes, name: str = "log") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def zipped(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a", content)
    return packed.getvalue()


def test_a_directory_is_read_without_what_can_be_no_log(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    (folder / "sub").mkdir(parents=True)
    (folder / ".git").mkdir()
    for name in ("sub/a.csv", ".hidden", ".git/b.csv"):
        put(folder, LOG, name)
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        report = ingest(workspace, [folder], "d")
    assert [Path(each.file).name for each in report.sources] == ["a.csv"]
    assert report.rows_stored == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (lambda path: path.symlink_to("nowhere"), "No such file"),
        (lambda path: os.mkfifo(path), "is a pipe, which cannot be read twice"),
        (lambda path: socket.socket(socket.AF_UNIX).bind(str(path)), "No such device"),
        (lambda path: path.mkdir(), "an empty directory"),
    ],
)
def test_a_path_that_is_no_file_is_one_line(
    make: Callable[[Path], object], message: str, workspace: Workspace, tmp_path: Path
) -> None:
    make(tmp_path / "log")
    with pytest.raises(DataError) as error:
        ingest(workspace, [tmp_path / "log"], "d")
    assert message in in_one_line(error)


def test_a_link_that_leads_nowhere_is_said_where_a_directory_holds_one(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "log").symlink_to("nowhere")
    with pytest.raises(DataError, match="log: No such file"):
        ingest(workspace, [folder], "d")


@pytest.mark.parametrize("name", ["a" * 300, "a\nb", "a\udcff", "no/such/*.csv", "[1].csv"])
def test_a_name_of_no_file_is_one_line(name: str, workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        ingest(workspace, [tmp_path / name], "d")
    in_one_line(error).encode()


@pytest.mark.parametrize("name", [b"a\nb", b"a\xff", b"[1].csv", b"-x", b"a!b"])
def test_any_name_of_a_file_can_be_read(name: bytes, workspace: Workspace, tmp_path: Path) -> None:
    path = put(tmp_path, LOG, os.fsdecode(name))
    assert [ingest(workspace, [each], "d").rows_stored for each in (path, tmp_path)] == [2, 0]


@pytest.mark.skipif(os.getuid() != 0, reason="needs to be another user, which only root can")
@pytest.mark.parametrize(
    ("closed", "asked", "message"),
    [
        ("logs/a.csv", "logs/a.csv", "a.csv: Permission denied"),
        ("logs/a.csv", "logs", "a.csv: Permission denied"),
        ("logs/sub", "logs", "sub: Permission denied"),
        ("logs", "logs", "logs: Permission denied"),
        ("logs", "logs/a.csv", "a.csv: Permission denied"),
    ],
)
def test_what_may_not_be_read_is_said(closed: str, asked: str, message: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "logs" / "sub").mkdir(parents=True)
        put(folder, LOG, "logs/a.csv")
        for each in (folder, *folder.rglob("*")):
            each.chmod(0 if each == folder / closed else 0o755)
        command = [sys.executable, "-c", AS_NOBODY, str(folder / asked)]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert (done.returncode, done.stderr) == (0, "")
    assert message in done.stdout
    assert done.stdout.count("\n") == 1


def from_stdin(workspace: Workspace, stdin: bytes | None, *options: str) -> subprocess.CompletedProcess[bytes]:
    command = [
        sys.executable,
        "-m",
        "lodestar",
        "ingest",
        "-",
        "--dataset",
        "d",
        "--home",
        str(workspace.home),
        *options,
    ]
    if stdin is None:
        return subprocess.run(["sh", "-c", 'exec "$@" <&-', "sh", *command], capture_output=True)
    return subprocess.run(command, input=stdin, capture_output=True)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zipped])
def test_stdin_is_read_as_a_file_is(pack: Callable[[bytes], bytes], workspace: Workspace) -> None:
    done = from_stdin(workspace, pack(LOG), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows_stored"] == 2


@pytest.mark.parametrize(
    ("stdin", "message"),
    [(b"", b"stdin is empty"), (b"\n\n", b"stdin is empty"), (None, b"closed"), (b"x", b"no known")],
)
def test_stdin_without_a_log_is_one_line(stdin: bytes | None, message: bytes, workspace: Workspace) -> None:
    done = from_stdin(workspace, stdin)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count(b"\n") == 1


def logs(folder: Path) -> None:
    (folder / "sub").mkdir(parents=True)
    for k, name in enumerate(("a.csv", "b.csv", "sub/c.csv", "d.txt")):
        put(folder, LOG.replace(b",1\n", b",%d\n" % (k + 2)).replace(b"2024", b"20%d" % (24 + k)), name)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [("*.csv", 2), ("[a]*.csv", 1), ("?.csv", 2), ("**/*.csv", 3), ("s*", 1), ("*", 4), ("{a}*", None), ("*.no", None)],
)
def test_patterns_name_files(pattern: str, found: int | None, workspace: Workspace, tmp_path: Path) -> None:
    logs(tmp_path / "logs")
    path = tmp_path / "logs" / pattern
    if found is None:
        with pytest.raises(DataError):
            ingest(workspace, [path], "d")
    else:
        assert len(ingest(workspace, [path], "d").sources) == found


def stored(report: IngestReport) -> list[tuple[int, bool]]:
    return [(source.rows_stored, source.already_stored) for source in report.sources]


def test_one_content_by_two_names_is_stored_once(workspace: Workspace, tmp_path: Path) -> None:
    one, other = put(tmp_path, LOG, "a"), put(tmp_path, LOG, "b")
    (tmp_path / "c").symlink_to(one)
    os.link(one, tmp_path / "d")
    report = ingest(workspace, [one, other, tmp_path / "c", tmp_path / "d", one], "d")
    assert stored(report) == [(2, False), *[(0, True)] * 4]


def test_one_content_plain_and_packed_is_stored_once(workspace: Workspace, tmp_path: Path) -> None:
    ingest(workspace, [put(tmp_path, LOG, "a"), put(tmp_path, gzip.compress(LOG), "a.gz")], "d")
    with open_store(workspace) as con:
        assert con.execute("SELECT count(*) FROM requests").fetchall() == [(2,)]
