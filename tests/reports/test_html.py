from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lodestar.reports.html import write_report

HOSTILE = "x</script><script>document.title='owned'</script><img src=http://evil.example/a onerror=alert(1)>"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Collects what a browser would fetch, the text it would show and tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "data", "poster", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data


@pytest.fixture
def report(make_replay, tmp_path: Path) -> str:
    return write_report(make_replay(), tmp_path / "new" / "report.html").read_text(encoding="utf-8")


def test_a_report_fetches_nothing(report: str) -> None:
    page = Page(report)
    assert page.fetched == []
    assert not {"link", "img", "iframe", "object", "embed"} & set(page.tags)
    styles = "".join(re.findall(r"<style>(.*?)</style>", report, re.DOTALL))
    assert "url(" not in styles
    assert "@import" not in styles
    assert "default-src 'none'" in report


def test_a_report_is_whole(report: str) -> None:
    page = Page(report)
    assert page.open == []
    for text in ("random", "prefix-cache-and-load", "least-request", "lodestar", "Trusted", "closed-loop, replayed"):
        assert text in page.text
    for text in ("fitted to sharing09", "prefill_us_per_token", "253 groups", "210,000", "20:30:00Z", "2,000 ms"):
        assert text in page.text


def test_an_untrusted_report_says_so_everywhere(make_replay, tmp_path: Path) -> None:
    page = write_report(make_replay(verdict="untrusted"), tmp_path / "r.html").read_text()
    assert '<div class="strip" role="alert">' in page
    assert "<h2>Untrusted</h2>" in page
    assert page.count("· untrusted</b>") == 6
    assert "untrusted" in page.split("<title>")[1].split("</title>")[0]


def test_every_row_of_replayed_numbers_has_the_verdict(make_replay, tmp_path: Path) -> None:
    page = write_report(make_replay(verdict="untrusted"), tmp_path / "r.html").read_text()
    policies = page.split("<h2>Policies")[1].split("</section>")[0]
    rows = [row for row in policies.split("<tr>") if "<td" in row]
    assert len(rows) == 12  # of two tables of policies and of the ranks
    # More columns do not fit a page 1,200 pixels wide.
    assert max(table.count("<th ") for table in policies.split("<table>")[1:]) <= 9
    assert all("<small>untrusted" in row for row in rows)


def test_flags_stand_below_the_table_of_policies(make_replay, tmp_path: Path) -> None:
    text = Page(write_report(make_replay(unstable="least-request"), tmp_path / "r.html").read_text()).text
    assert "least-request: unstable: the queue grows by 31.4 requests per minute" in text
    assert "prefix-cache-and-load: depends on its path" in text
    assert "Rank by mean TTFT, closed-loop, replayed, trusted" in text


def test_a_trusted_report_has_no_warning(report: str) -> None:
    assert "untrusted" not in Page(report).text.lower()
    assert 'role="alert"' not in report


def test_one_step_estimates_are_labelled(report: str) -> None:
    part = Page(report).text.split("Estimates from the log")[1].split("What it stands on")[0]
    assert "one-step, logged states" in part
    assert "A diagnostic, not a result." in part


def test_what_is_missing_is_left_out_or_explained(make_replay, tmp_path: Path) -> None:
    folder = make_replay(measured=False, one_step=False, verdict="not judged")
    (folder / "calibration.parquet").unlink()
    text = Page(write_report(folder, tmp_path / "r.html").read_text()).text
    assert "Not judged" in text
    assert "None: the log has no propensities." in text
    assert "Replayed against measured" not in text
    assert "Predictor held-out rows" not in text


def test_a_test_of_two_routers_needs_no_one_step_estimates(make_replay, tmp_path: Path) -> None:
    folder = make_replay(one_step=False)
    result = json.loads((folder / "result.json").read_text())
    path = [{"burn_in": 8, "value": 2.5, "se": 3.5}]
    result["test"] = {"design": "switchback", "a": "one", "b": "other", "value": 2.5, "burn_in": 8, "path": path}
    result["test"] |= {"ci95": [-5.0, 10.0], "notes": []}
    (folder / "result.json").write_text(json.dumps(result))
    text = Page(write_report(folder, tmp_path / "r.html").read_text()).text
    assert "The log is a test: switchback" in text


def test_names_from_logs_are_escaped(make_replay, tmp_path: Path) -> None:
    html = write_report(make_replay(dataset=HOSTILE), tmp_path / "r.html").read_text()
    assert "<script>document.title" not in html
    assert "img" not in Page(html).tags
    assert HOSTILE in Page(html).text


def test_the_same_replay_gives_the_same_bytes(make_replay, tmp_path: Path) -> None:
    folder = make_replay()
    first, second = (write_report(folder, tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second
