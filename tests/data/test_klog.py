from __future__ import annotations

import pytest

from lodestar.data.aibrix.klog import duration_ms, klog_line, mapping, names, pairs


def test_a_time_counts_from_the_start_of_its_year() -> None:
    line = klog_line("W0101 00:00:00.000001       1 util.go:80] hello")
    assert line is not None
    assert (line.at_us, line.file, line.message) == (1, "util.go", "hello")


@pytest.mark.parametrize(
    "raw", ["", "Connected to Redis", "I0230 00:00:00.000000 1 a.go:1] x", "I0101 25:00:00.0 1 a] x"]
)
def test_what_is_no_klog_line_is_none(raw: str) -> None:
    assert klog_line(raw) is None


def test_values_may_be_quoted_lists_or_maps() -> None:
    said = pairs(r'"m" text="a \"b\" = c" list=["x","y"] json={"p":1,"q":2} go=map[p:1 q:2] n=7')
    assert said == {"text": 'a "b" = c', "list": '["x","y"]', "json": '{"p":1,"q":2}', "go": "map[p:1 q:2]", "n": "7"}


@pytest.mark.parametrize(
    "text", ["", "x", "[1]", '{"a":"b"}', '{"a":NaN}', '{"a":1e999}', "map[a:b]", '{"a":' + "9" * 400 + "}"]
)
def test_a_map_of_anything_but_finite_numbers_is_none(text: str) -> None:
    assert mapping(text) is None


@pytest.mark.parametrize("text", ["", "x", "{}", "[1]", "[" * 5000])
def test_a_list_of_anything_but_names_is_none(text: str) -> None:
    assert names(text) is None


@pytest.mark.parametrize(("text", "ms"), [("1h2m3s", 3_723_000.0), ("90ns", 9e-5), ("5", None), ("5 s", None)])
def test_durations_are_read_as_go_prints_them(text: str, ms: float | None) -> None:
    assert duration_ms(text) == (None if ms is None else pytest.approx(ms))
