"""The report in a real browser, framed as MLflow frames it."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lodestar.reports.html import write_report

# Runs inside the report, once its figures are drawn.
PROBE = """<script>
const at = setInterval(() => {
  if (!document.body.dataset.drawn) return;
  clearInterval(at);
  const count = (selector) => document.querySelectorAll(selector).length;
  const wide = document.documentElement.scrollWidth - innerWidth;
  document.querySelector('[data-trace="random"]').click();
  parent.postMessage({ figures: count(".js-plotly-plot"), lines: count(".scatterlayer .trace"),
    heatmaps: count(".heatmaplayer image"), title: document.title, wide,
    pressed: document.querySelector('[data-trace="random"]').getAttribute("aria-pressed") }, "*");
}, 50);
</script>"""

# MLflow's frame. The image is answered when the report has been seen, so that the browser waits for it.
OUTER = """<!doctype html><img src="/hold"><script>
onmessage = (event) => fetch("/seen", { method: "POST", body: JSON.stringify(event.data) });
</script><iframe sandbox="allow-scripts" src="/framed.html" width="WIDTH" height="4000"></iframe>"""


class Frame(ThreadingHTTPServer):
    """Serves one report in a frame, and keeps what was asked for and what the report said."""

    daemon_threads = True

    def __init__(self, report: Path, width: int) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        framed = report.read_text(encoding="utf-8").replace("</body>", f"{PROBE}</body>")
        self.pages = {"/": OUTER.replace("WIDTH", str(width)), "/framed.html": framed}
        self.asked: list[str] = []
        self.said: dict[str, Any] = {}
        self.seen = threading.Event()


class Answer(BaseHTTPRequestHandler):
    server: Frame

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path == "/hold":
            self.server.seen.wait(60)
        self.send_response(200 if self.path in self.server.pages else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(self.server.pages.get(self.path, "").encode())

    def do_POST(self) -> None:
        self.server.said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.set()
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def chromium(tmp_path: Path) -> list[str]:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium on the PATH to draw the report with")
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
    return [found, "--headless", "--no-sandbox", "--disable-gpu", *quiet, f"--user-data-dir={tmp_path / 'browser'}"]


def framed(chromium: list[str], report: Path, width: int = 1000) -> Frame:
    server = Frame(report, width)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/"
        subprocess.run([*chromium, "--dump-dom", address], capture_output=True, timeout=120, check=True)
    finally:
        server.shutdown()
        server.server_close()
    return server


def test_all_figures_are_drawn_in_a_sandboxed_frame_without_a_request(chromium, make_replay, tmp_path: Path) -> None:
    hostile = "x</script><script>document.title='owned'</script>"
    seen = framed(chromium, write_report(make_replay(dataset=hostile), tmp_path / "report.html"))
    assert set(seen.asked) <= {"/", "/hold", "/framed.html", "/favicon.ico"}
    assert seen.said["figures"] == 12
    assert seen.said["lines"] >= 3 * 4 + 2 * 4  # three distributions and two panels over time, four policies each
    assert seen.said["heatmaps"] == 4
    assert seen.said["pressed"] == "false"
    assert seen.said["title"] != "owned"


def test_a_narrow_page_does_not_scroll_sideways(chromium, make_replay, tmp_path: Path) -> None:
    seen = framed(chromium, write_report(make_replay(verdict="untrusted"), tmp_path / "report.html"), width=480)
    assert seen.said["wide"] <= 0
