"""Sources made to break a reader: lines and nesting without end, bombs, damaged files, and archives that lie."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
import zstandard

from lodestar.data.errors import DataError, LodestarError
from lodestar.data.formats import formats
from lodestar.data.ingest import ingest
from lodestar.data.store import open_store
from lodestar.data.workspace import Workspace
from readings import read_all
from seeds import CSV_HEADS, SEEDS, json_lines

LOG: Final = SEEDS["azure"][0]
LINES: Final = (
    *(*CSV_HEADS, "native", "lodestar-klog", "mooncake", "aiperf", "qwen-bailian", "dynamo", "vllm-log"),
    *("vllm-prometheus", "vllm-timeseries", "aibrix-client", "aibrix-gateway", "aibrix-workload", "llm-d"),
)
#: Formats of JSON, as records a line or as one document.
NESTED: Final = (
    *("native", "mooncake", "aiperf", "qwen-bailian", "dynamo", "vllm-timeseries", "aibrix-client", "aibrix-workload"),
    *("llm-d", "weka", "vllm-bench", "vllm-otlp", "guidellm", "inference-perf", "vllm-timeseries-meta"),
)
DEEP: Final = 100_000
ZEROS: Final = bytes(1 << 24)
TIMES: Final = 1024  # 16 GiB of them
#: Of the whole process, its libraries with it.
MOST_MIB: Final = 1500
MOST_SECONDS: Final = 60

MEASURED: Final = """
import json, sys
from pathlib import Path
from lodestar.data.errors import LodestarError
from lodestar.data.ingest import ingest
from lodestar.data.workspace import Workspace
sys.path.insert(0, sys.argv[4])
from process_memory import peak_mib

try:
    said = ingest(Workspace.open(Path(sys.argv[1])), [Path(sys.argv[2])], "d", format=sys.argv[3] or None).to_dict()
except LodestarError as error:
    said = str(error)
print(json.dumps([said, peak_mib()]))
"""


def in_one_line(error: pytest.ExceptionInfo[LodestarError]) -> str:
    (line,) = str(error.value).splitlines()
    return line


def rejects(workspace: Workspace) -> list[tuple[str, int]]:
    with open_store(workspace) as con:
        return con.execute("SELECT reason, length(raw) FROM rejects").fetchall()


def put(folder: Path, content: bytes, name: str = "log") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def with_line(name: str, line: bytes) -> bytes:
    return SEEDS[name][0].rstrip(b"\n") + b"\n" + line + b"\n"


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return packed.getvalue()


@pytest.mark.parametrize("name", LINES)
def test_a_line_of_ten_megabytes_is_read_as_any_other(name: str, workspace: Workspace, tmp_path: Path) -> None:
    whole = ingest(workspace, [put(tmp_path, SEEDS[name][0])], "d", format=name)
    line = b'{"a": "' + b"x" * 10_000_000 + b'"}'
    start = time.monotonic()
    report = ingest(workspace, [put(tmp_path, with_line(name, line))], "long", format=name)
    assert time.monotonic() - start < MOST_SECONDS
    assert report.rows_stored == whole.rows_stored
    assert report.rows_read - whole.rows_read == (0 if "gateway" in name or "klog" in name or name == "vllm-log" else 1)


@pytest.mark.parametrize("name", LINES)
def test_a_longer_line_than_any_log_has_is_one_reject(name: str, workspace: Workspace, tmp_path: Path) -> None:
    whole = ingest(workspace, [put(tmp_path, SEEDS[name][0])], "d", format=name)
    path = put(tmp_path, with_line(name, b"x" * 40_000_000) + b"\n")
    report = ingest(workspace, [path], "long", format=name)
    assert (report.rows_stored, report.rows_rejected) == (whole.rows_stored, whole.rows_rejected + 1)
    assert ("line-too-long", 1 << 16) in rejects(workspace)


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize("start", [b"[", b'{"request":', b'{"hash_ids":['])
@pytest.mark.parametrize("closed", [False, True])
def test_nesting_without_end_is_refused(
    name: str, start: bytes, closed: bool, workspace: Workspace, tmp_path: Path
) -> None:
    end = start[::-1].translate(bytes.maketrans(b"[{", b"]}"), b'":_abcdefghijklmnopqrstuvwxyz')
    line = start * DEEP + (b"1" + end * DEEP if closed else b"")
    document = name in ("guidellm", "inference-perf", "vllm-timeseries-meta")
    report = ingest(workspace, [put(tmp_path, line if document else with_line(name, line))], "d", format=name)
    assert report.rows_rejected == 1
    assert {reason for reason, _ in rejects(workspace)} <= {"bad-json", "wrong-type", "missing-key"}


def bomb(kind: str) -> bytes:
    """Many GiB of zeros: a part of them packed, many times, as all these formats may be continued."""
    if kind == "zip":
        return zip_bomb()
    pack = {"gz": gzip.compress, "bz2": bz2.compress, "zst": zstandard.compress}[kind]
    return pack(ZEROS) * TIMES


def zip_bomb() -> bytes:
    packer = zlib.compressobj(wbits=-15)
    part = packer.compress(ZEROS) + packer.flush(zlib.Z_FULL_FLUSH)
    packed, size = part * TIMES + packer.flush(), len(ZEROS) * TIMES
    sizes = struct.pack("<HHQQ", 1, 16, size, len(packed))  # of 64 bits, beside the header's
    header = struct.pack("<HHHHHIII", 45, 0, 8, 0, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF)
    local = b"PK\x03\x04" + header + struct.pack("<HH", 1, len(sizes)) + b"x" + sizes + packed
    central = b"PK\x01\x02" + struct.pack("<H", 45) + header + struct.pack("<HHHHHII", 1, len(sizes), 0, 0, 0, 0, 0)
    end = struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central) + 1 + len(sizes), len(local), 0)
    return local + central + b"x" + sizes + b"PK\x05\x06" + end


@pytest.mark.parametrize("kind", ["gz", "bz2", "zst", "zip"])
@pytest.mark.parametrize(
    ("format", "messages"),
    [("", ("unpack to", "no known format")), ("azure", ("unpack to",)), ("weka", ("unpack to", "more than 256 MiB"))],
)
def test_a_bomb_fills_neither_memory_nor_time(
    kind: str, format: str, messages: tuple[str, ...], workspace: Workspace, tmp_path: Path
) -> None:
    path = put(tmp_path, bomb(kind))
    start = time.monotonic()
    arguments = [str(workspace.home), str(path), format, str(Path(__file__).parents[1])]
    done = subprocess.run([sys.executable, "-c", MEASURED, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said, peak = json.loads(done.stdout)
    assert "\n" not in said
    assert any(message in said for message in messages), said
    assert peak < MOST_MIB
    assert time.monotonic() - start < MOST_SECONDS


@pytest.mark.parametrize(
    "name", ["../../climbed", "/tmp/climbed", "C:\\climbed", "a/../../b", "a\nb\u2028", "caf\u00e9"]
)
def test_names_within_an_archive_are_but_names(name: str, workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    before = set(tmp_path.rglob("*"))
    report = ingest(workspace, [put(folder, zipped((name, LOG)), "x.zip")], "d")
    assert report.rows_stored == 2
    assert len(report.sources[0].file.splitlines()) == 1
    assert set(tmp_path.rglob("*")) - before - set(workspace.home.rglob("*")) == {folder / "x.zip"}


def encrypted() -> bytes:
    """Say of both headers of the only member that it is."""
    content = bytearray(zipped(("a", LOG)))
    content[6] |= 1
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def broken_within() -> bytes:
    content = bytearray(zipped(("a", LOG * 50), method=zipfile.ZIP_STORED))
    content[200] ^= 0xFF
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zipped(), "an empty zip archive"),
        (zipped(("folder/", b"")), "an empty zip archive"),
        (encrypted(), "log!a is encrypted"),
        (zipped(("a", LOG))[:-30], "damaged zip archive"),
        (zipped(("a", LOG)).replace(b"PK\x01\x02", b"PK\x01\xff"), "damaged zip archive"),
        (
            zipped(("a", LOG)).replace(b"PK\x03\x04", b"PK\x03\x05", 1).replace(b"PK\x03\x05", b"PK\x03\x04", 0),
            "no known",
        ),
        (b"PK\x03\x04" + zipped(("a", LOG))[5:], "log!a"),
        (broken_within(), "log!a: damaged compressed file"),
        (zipped(("a", LOG), method=zipfile.ZIP_LZMA), "compressed by method 14; expected deflate"),
        (zipped(("a", zipped(("b", LOG)))), "no known format"),
        (zipped(("a", b""), ("b", b"hello")), "is empty"),
    ],
)
def test_an_archive_that_cannot_be_read_is_one_line(
    content: bytes, message: str, workspace: Workspace, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as error:
        ingest(workspace, [put(tmp_path, content)], "d")
    assert message in in_one_line(error)


def test_packed_members_of_an_archive_are_unpacked(workspace: Workspace, tmp_path: Path) -> None:
    path = put(tmp_path, zipped(("a.gz", gzip.compress(LOG)), ("read.me", b"hello"), ("empty", b"")), "x.zip")
    report = ingest(workspace, [path], "d")
    assert (report.rows_stored, [each.file.rsplit("!")[1] for each in report.skipped]) == (2, ["read.me", "empty"])


PACKERS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "zst": zstandard.compress,
}


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("damage", ["cut at the end", "cut at the start", "cut in the middle", "followed by junk"])
def test_damage_in_a_packed_file_is_one_line_and_stores_nothing(
    kind: str, damage: str, workspace: Workspace, tmp_path: Path
) -> None:
    rows = b"".join(b"2024-05-10 00:00:01.%06d,%d,1\n" % (i, i + 1) for i in range(200_000))
    packed = PACKERS[kind](CSV_HEADS["azure"].encode() + rows)
    size = {"cut at the end": -1, "cut at the start": 6, "cut in the middle": len(packed) // 2}.get(damage)
    path = put(tmp_path, packed + b"junk" if size is None else packed[:size])
    with pytest.raises(DataError) as error:
        ingest(workspace, [path], "d", format="azure")
    assert "log: damaged compressed file" in in_one_line(error)
    with open_store(workspace) as con:
        assert con.execute("SELECT count(*) FROM requests").fetchall() == [(0,)]


@pytest.mark.parametrize("kind", PACKERS)
def test_packed_files_may_follow_each_other_in_one(kind: str, workspace: Workspace, tmp_path: Path) -> None:
    head, body = LOG.split(b"\n", 1)
    parts = [PACKERS[kind](part) for part in (head + b"\n", body[:20], body[20:], b"")]
    assert ingest(workspace, [put(tmp_path, b"".join(parts))], "d").rows_stored == 2


@pytest.mark.parametrize("name", formats())
def test_every_format_refuses_what_is_not_its_own(name: str) -> None:
    for content in (b"\0" * 1000, b"\xff" * 1000, b"hello\n", json_lines({}), json_lines([]), b"PAR1" * 10):
        try:
            read = read_all(formats()[name], content)
        except LodestarError as error:
            said = str(error)
        else:
            assert read.lines == len(read.rejects)
            continue
        assert len(said.splitlines()) == 1
