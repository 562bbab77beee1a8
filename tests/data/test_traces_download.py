"""Getting a trace: from a real HTTP server on loopback that can be told to misbehave, and from files."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lodestar.data.errors import ConfigError, DataError, LodestarError
from lodestar.data.traces.catalogue import Trace, catalogue
from lodestar.data.traces.download import get, trace_path
from lodestar.data.workspace import Workspace

CONTENT = os.urandom(700_000)


class Server(ThreadingHTTPServer):
    """Serves `content` at every path; the other attributes are how it misbehaves."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.etag: str | None = '"one"'
        self.ranges = True
        self.heeds_if_range = True
        self.breaks_after: int | None = None
        self.status: int | None = None
        self.redirect: str | None = None
        self.says_length = True
        self.range_off_by = 0
        self.pause_s = 0.0
        self.asked: list[str | None] = []
        self.versions: list[str | None] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone away is what some tests are about."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/trace.bin"


class Handler(BaseHTTPRequestHandler):
    """Range and If-Range as RFC 9110 has them."""

    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        rules, asked = self.server, self.headers.get("Range")
        rules.asked.append(asked)
        rules.versions.append(self.headers.get("If-Range"))
        if rules.status or (rules.redirect and not self.path.endswith("moved")):
            self.send_response(rules.status or 302)
            if rules.redirect:
                self.send_header("Location", rules.redirect)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = self._start(asked)
        if start > len(rules.content):
            self.send_error(416)
            return
        start += rules.range_off_by if start else 0
        body = rules.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(rules.content) - 1}/{len(rules.content)}")
        if rules.etag:
            self.send_header("ETag", rules.etag)
        if rules.says_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = len(body) if rules.breaks_after is None else rules.breaks_after
        for at in range(0, cut, 50_000):
            self.wfile.write(body[at : min(at + 50_000, cut)])
            time.sleep(rules.pause_s)
        self.close_connection = True

    def _start(self, asked: str | None) -> int:
        span = re.fullmatch(r"bytes=(\d+)-", asked or "")
        unchanged = self.headers.get("If-Range") in (None, self.server.etag) or not self.server.heeds_if_range
        return int(span[1]) if span and self.server.ranges and unchanged else 0


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as serving:
        threading.Thread(target=serving.serve_forever, args=(0.01,), daemon=True).start()
        yield serving
        serving.shutdown()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "home")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def a_trace(hash_of: bytes | None = CONTENT, length_of: bytes | None = CONTENT, format: str | None = "azure") -> Trace:
    return Trace(
        name="some-trace",
        what="noise",
        source="https://example.org/some",
        revision="main",
        licence="MIT",
        url="https://unreachable.invalid/trace.bin",
        file="trace.bin",
        provides=("arrivals",),
        format=format,
        size_bytes=len(length_of) if length_of else None,
        sha256=sha256(hash_of) if hash_of else None,
    )


UNKNOWN = a_trace(hash_of=None, length_of=None)


def part_of(workspace: Workspace) -> Path:
    return trace_path(workspace, UNKNOWN).with_name("trace.bin.part")


def broken_off(workspace: Workspace, server: Server, trace: Trace, after: int = 300_000) -> None:
    server.breaks_after = after
    with pytest.raises(DataError, match="Run the same command again"):
        get(workspace, trace, server.url)
    server.breaks_after = None


def files_of(workspace: Workspace) -> list[str]:
    return sorted(path.name for path in trace_path(workspace, UNKNOWN).parent.iterdir())


def test_a_download_is_whole_verified_and_tells_the_next_step(workspace: Workspace, server: Server) -> None:
    seen: list[int] = []
    fetched = get(workspace, a_trace(), server.url, lambda *, done, of, what: seen.append(done))
    assert fetched.path.read_bytes() == CONTENT
    assert (fetched.downloaded_bytes, fetched.resumed_from_bytes) == (len(CONTENT), 0)
    assert fetched.notes == ("SHA-256 verified against the catalogue",)
    assert fetched.next == f"lodestar ingest {fetched.path} --dataset some-trace"
    assert seen == sorted(seen)
    assert seen[-1] == len(CONTENT)
    assert files_of(workspace) == ["trace.bin"]


def test_what_is_there_and_right_is_not_downloaded_again(workspace: Workspace, server: Server) -> None:
    get(workspace, a_trace(), server.url)
    again = get(workspace, a_trace(), server.url)
    assert len(server.asked) == 1
    assert again.downloaded_bytes == 0
    assert again.notes[0] == "it was there already; nothing was downloaded"


@pytest.mark.parametrize("trace", [a_trace(), UNKNOWN], ids=["known hash", "unknown hash"])
def test_a_broken_download_goes_on_where_it_ended(workspace: Workspace, server: Server, trace: Trace) -> None:
    broken_off(workspace, server, trace)
    assert part_of(workspace).stat().st_size == 300_000
    fetched = get(workspace, trace, server.url)
    assert server.asked == [None, "bytes=300000-"]
    assert server.versions == [None, '"one"']
    assert fetched.path.read_bytes() == CONTENT
    assert (fetched.resumed_from_bytes, fetched.downloaded_bytes) == (300_000, len(CONTENT) - 300_000)


def test_a_server_without_ranges_starts_over(workspace: Workspace, server: Server) -> None:
    server.ranges = False
    broken_off(workspace, server, a_trace())
    fetched = get(workspace, a_trace(), server.url)
    assert fetched.path.read_bytes() == CONTENT
    assert fetched.resumed_from_bytes == 0


@pytest.mark.parametrize("heeds", [True, False], ids=["If-Range heeded", "If-Range ignored"])
def test_a_file_that_changed_is_never_spliced(workspace: Workspace, server: Server, heeds: bool) -> None:
    server.heeds_if_range = heeds
    broken_off(workspace, server, UNKNOWN)
    server.content, server.etag = CONTENT[::-1], '"two"'
    fetched = get(workspace, UNKNOWN, server.url)
    assert server.asked[1] == "bytes=300000-"
    assert fetched.path.read_bytes() == CONTENT[::-1]


def test_without_a_version_only_a_hash_allows_to_go_on(workspace: Workspace, server: Server) -> None:
    server.etag = None
    broken_off(workspace, server, UNKNOWN)
    assert get(workspace, UNKNOWN, server.url).resumed_from_bytes == 0


def test_without_a_version_a_splice_is_caught_by_the_hash(workspace: Workspace, server: Server) -> None:
    server.etag = None
    broken_off(workspace, server, a_trace())
    server.content = CONTENT[::-1]
    with pytest.raises(DataError, match="SHA-256 is"):
        get(workspace, a_trace(), server.url)
    server.content = CONTENT
    assert get(workspace, a_trace(), server.url).path.read_bytes() == CONTENT


def test_a_download_from_another_address_is_not_gone_on_with(workspace: Workspace, server: Server) -> None:
    broken_off(workspace, server, a_trace())
    assert get(workspace, a_trace(), f"{server.url}?mirror").resumed_from_bytes == 0


def test_a_server_that_sends_another_range_starts_over(workspace: Workspace, server: Server) -> None:
    broken_off(workspace, server, UNKNOWN)
    server.range_off_by = 7
    fetched = get(workspace, UNKNOWN, server.url)
    assert fetched.path.read_bytes() == CONTENT
    assert fetched.resumed_from_bytes == 0


def test_without_a_length_from_the_server_that_of_the_catalogue_counts(workspace: Workspace, server: Server) -> None:
    server.says_length = False
    broken_off(workspace, server, a_trace())
    assert get(workspace, a_trace(), server.url).resumed_from_bytes == 300_000


def test_more_than_the_length_is_refused_while_it_comes(workspace: Workspace, server: Server) -> None:
    server.says_length, server.content = False, CONTENT * 2
    with pytest.raises(DataError, match="more than the 700,000 bytes expected came"):
        get(workspace, a_trace(), server.url)
    assert part_of(workspace).stat().st_size < len(CONTENT) * 2


def test_a_download_of_which_nothing_is_known_is_refused(workspace: Workspace, server: Server) -> None:
    server.says_length = False
    with pytest.raises(DataError, match="does not say how long the file is"):
        get(workspace, UNKNOWN, server.url)


def test_a_range_past_the_end_starts_over(workspace: Workspace, server: Server) -> None:
    broken_off(workspace, server, UNKNOWN)
    part_of(workspace).write_bytes(CONTENT * 2)
    assert get(workspace, UNKNOWN, server.url).path.read_bytes() == CONTENT


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, 200_000), max_size=4))
def test_however_often_it_breaks_the_file_is_the_same(tmp_path: Path, server: Server, cuts: list[int]) -> None:
    shutil.rmtree(tmp_path / "home", ignore_errors=True)
    workspace = Workspace.open(tmp_path / "home")
    for cut in cuts:
        broken_off(workspace, server, UNKNOWN, cut)
    fetched = get(workspace, UNKNOWN, server.url)
    assert fetched.path.read_bytes() == CONTENT
    assert fetched.resumed_from_bytes == sum(cuts)


def test_a_wrong_checksum_keeps_the_file_aside_under_another_name(workspace: Workspace, server: Server) -> None:
    server.content = CONTENT[::-1]
    with pytest.raises(DataError) as refused:
        get(workspace, a_trace(), server.url)
    said = str(refused.value)
    assert sha256(CONTENT) in said
    assert sha256(CONTENT[::-1]) in said
    assert "trace.bin.bad" in said
    assert files_of(workspace) == ["trace.bin.bad"]


def test_another_length_is_refused_before_anything_is_downloaded(workspace: Workspace, server: Server) -> None:
    server.content = CONTENT * 3
    with pytest.raises(DataError, match=r"has 2,100,000 bytes; expected 700,000"):
        get(workspace, a_trace(), server.url)
    assert files_of(workspace) == []


def test_a_trace_without_a_checksum_is_trusted_once_and_says_so(workspace: Workspace, server: Server) -> None:
    fetched = get(workspace, UNKNOWN, server.url)
    assert "the catalogue knows no checksum" in fetched.notes[0]
    recorded = fetched.path.with_name("trace.bin.sha256")
    assert recorded.read_text() == f"{sha256(CONTENT)}  trace.bin\n"


def test_later_downloads_must_match_the_first(workspace: Workspace, server: Server) -> None:
    get(workspace, UNKNOWN, server.url).path.unlink()
    server.content = CONTENT[::-1]
    with pytest.raises(DataError, match=r"by the first download \(trace\.bin\.sha256\)"):
        get(workspace, UNKNOWN, server.url)
    server.content = CONTENT
    assert "verified against the first download" in get(workspace, UNKNOWN, server.url).notes[0]


def test_a_damaged_record_is_named(workspace: Workspace, server: Server) -> None:
    get(workspace, UNKNOWN, server.url).path.with_name("trace.bin.sha256").write_text("nothing")
    with pytest.raises(DataError, match="'nothing' is no SHA-256"):
        get(workspace, UNKNOWN, server.url)


@pytest.mark.parametrize("page", [b"\n<!DOCTYPE html><p>log in", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_web_page_or_a_pointer_is_not_taken_for_a_trace(workspace: Workspace, server: Server, page: bytes) -> None:
    server.content = page
    with pytest.raises(DataError, match="a web page or a Git LFS pointer"):
        get(workspace, UNKNOWN, server.url)
    assert not trace_path(workspace, UNKNOWN).exists()


def test_a_file_that_was_damaged_is_kept_aside_and_fetched_anew(workspace: Workspace, server: Server) -> None:
    get(workspace, a_trace(), server.url).path.write_bytes(b"edited")
    fetched = get(workspace, a_trace(), server.url)
    assert fetched.path.read_bytes() == CONTENT
    assert fetched.path.with_name("trace.bin.bad").read_bytes() == b"edited"
    assert "kept as trace.bin.bad" in fetched.notes[0]


def test_a_wrong_file_put_there_by_hand_stays_and_is_named_when_offline(workspace: Workspace, server: Server) -> None:
    server.status = 503
    path = trace_path(workspace, a_trace())
    path.parent.mkdir(parents=True)
    path.write_bytes(b"wrong")
    with pytest.raises(DataError, match=r"The file at .*trace\.bin is not it: SHA-256 is"):
        get(workspace, a_trace(), server.url)
    assert path.read_bytes() == b"wrong"


@pytest.mark.parametrize("trace", [a_trace(), UNKNOWN], ids=["known hash", "unknown hash"])
def test_a_file_put_there_by_hand_is_verified_and_taken(workspace: Workspace, trace: Trace) -> None:
    path = trace_path(workspace, trace)
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert get(workspace, trace).sha256 == sha256(CONTENT)


def one_line(error: pytest.ExceptionInfo[LodestarError]) -> str:
    said = str(error.value)
    assert "\n" not in said
    return said


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_a_refusal_names_address_status_and_next_step(workspace: Workspace, server: Server, status: int) -> None:
    server.status = status
    with pytest.raises(DataError) as refused:
        get(workspace, a_trace(), server.url)
    said = one_line(refused)
    assert said.startswith(f"{server.url}: the server says {status} ")
    assert "--from" in said
    assert str(trace_path(workspace, UNKNOWN)) in said


def test_offline_is_one_line_with_the_way_by_hand(workspace: Workspace) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/trace.bin"
        with pytest.raises(DataError) as refused:
            get(workspace, a_trace(), url)
    said = one_line(refused)
    assert f"{url}: cannot be read (Connection refused); no network or no such host" in said
    assert f"Download {a_trace().url} elsewhere and put it at {trace_path(workspace, UNKNOWN)}" in said


def test_a_host_that_is_not_known_is_one_line(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(DataError, match="no network or no such host") as refused:
        get(workspace, a_trace())
    assert one_line(refused).startswith("https://unreachable.invalid/trace.bin: cannot be read (")


def test_a_server_that_falls_silent_is_given_up(
    workspace: Workspace, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lodestar.data.traces.remote.TIMEOUT_S", 0.2)
    server.pause_s = 1.0
    with pytest.raises(DataError, match=r"connection broke \(timed out\)"):
        get(workspace, a_trace(), server.url)
    assert part_of(workspace).exists()


def test_redirects_are_followed_with_the_range(workspace: Workspace, server: Server) -> None:
    server.redirect = "/moved"
    broken_off(workspace, server, a_trace())
    assert get(workspace, a_trace(), server.url).resumed_from_bytes == 300_000


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/trace.bin"])
def test_a_redirect_to_anything_but_http_is_refused(workspace: Workspace, server: Server, target: str) -> None:
    server.redirect = target
    with pytest.raises(DataError) as refused:
        get(workspace, UNKNOWN, server.url)
    one_line(refused)
    assert files_of(workspace) == []


@pytest.mark.parametrize("source", ["ftp://host/a", "s3://bucket/a", "gopher://a"])
def test_other_schemes_are_refused(workspace: Workspace, source: str) -> None:
    with pytest.raises(ConfigError, match="expected http, https, file or a path"):
        get(workspace, a_trace(), source)


@pytest.mark.parametrize("source", ["http://[x/a", "http://", "http://h:port/a", "http://host/a b", "nothing-here"])
def test_an_address_that_cannot_be_one_is_one_line(workspace: Workspace, source: str) -> None:
    with pytest.raises(DataError) as refused:
        get(workspace, a_trace(), source)
    one_line(refused)


def test_a_copy_is_found_as_file_address_directory_or_mirror(tmp_path: Path, workspace: Workspace) -> None:
    mirror = tmp_path / "with space" / "some-trace"
    mirror.mkdir(parents=True)
    (mirror / "trace.bin").write_bytes(CONTENT)
    for source in (mirror / "trace.bin", (mirror / "trace.bin").as_uri(), mirror, mirror.parent):
        fetched = get(workspace, a_trace(), str(source))
        assert fetched.downloaded_bytes == len(CONTENT)
        fetched.path.unlink()


def test_a_copy_that_is_wrong_is_refused_as_a_download_is(tmp_path: Path, workspace: Workspace) -> None:
    (tmp_path / "trace.bin").write_bytes(CONTENT[::-1])
    with pytest.raises(DataError, match="SHA-256 is"):
        get(workspace, a_trace(), str(tmp_path))
    assert (tmp_path / "trace.bin").read_bytes() == CONTENT[::-1]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_line(workspace: Workspace, server: Server) -> None:
    part_of(workspace).parent.mkdir(parents=True)
    part_of(workspace).symlink_to("/dev/full")
    with pytest.raises(DataError, match="the disk is full after") as refused:
        get(workspace, a_trace(), server.url)
    assert "Make room" in one_line(refused)


GET = """
import sys
from pathlib import Path
from lodestar.data.traces.catalogue import Trace
from lodestar.data.traces.download import get
from lodestar.data.workspace import Workspace
get(Workspace(Path(sys.argv[1])), Trace(name="some-trace", what="", source="", revision="", licence="",
    url="https://unreachable.invalid/", file="trace.bin"), sys.argv[2])
"""


def slow_download(workspace: Workspace, server: Server) -> subprocess.Popen[bytes]:
    server.pause_s = 0.2
    process = subprocess.Popen([sys.executable, "-c", GET, str(workspace.home), server.url])
    deadline = time.monotonic() + 30
    while not (part_of(workspace).exists() and part_of(workspace).stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    server.pause_s = 0.0
    return process


def test_a_second_download_of_the_same_trace_is_refused(workspace: Workspace, server: Server) -> None:
    with slow_download(workspace, server) as first:
        with pytest.raises(ConfigError, match="'some-trace' is being downloaded by another process"):
            get(workspace, UNKNOWN, server.url)
        assert first.wait(30) == 0
    assert trace_path(workspace, UNKNOWN).read_bytes() == CONTENT


def test_a_killed_download_goes_on(workspace: Workspace, server: Server) -> None:
    with slow_download(workspace, server) as process:
        process.send_signal(signal.SIGKILL)
    assert not trace_path(workspace, UNKNOWN).exists()
    fetched = get(workspace, UNKNOWN, server.url)
    assert fetched.resumed_from_bytes > 0
    assert fetched.path.read_bytes() == CONTENT


REAL = ("mooncake/conversation_trace.jsonl", "azure/AzureLLMInferenceTrace_conv.csv", "aiperf/profile_export.jsonl")


@pytest.mark.parametrize("real", REAL)
def test_a_real_trace_is_fetched_over_http_as_the_catalogue_has_it(
    traces: Path, workspace: Workspace, server: Server, real: str
) -> None:
    server.content = gzip.decompress((traces / f"{real}.gz").read_bytes())
    trace = next(trace for trace in catalogue().values() if trace.file == Path(real).name)
    fetched = get(workspace, trace, f"{server.url}/")
    assert fetched.path.read_bytes() == server.content
    assert fetched.notes[0] == "SHA-256 verified against the catalogue"
