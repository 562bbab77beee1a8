"""CSV: what is a header, and what is a time."""

from __future__ import annotations

import polars as pl
import pytest

from lodestar.data.errors import DataError
from lodestar.data.formats.azure import FORMAT
from lodestar.data.parsing.delimited import utc_ns
from readings import read_all

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
ROW = "2024-05-10 00:00:00,10,1\n"


@pytest.mark.parametrize("year", ["0001", "1024", "1600", "2263", "3024", "9024", "9999"])
@pytest.mark.parametrize("other", [ROW, "odd\n"])
def test_a_year_that_nanoseconds_do_not_reach_is_no_time(year: str, other: str) -> None:
    read = read_all(FORMAT, HEADER + ROW + other + ROW.replace("2024", year))
    assert read.reasons[4] == "wrong-type"
    assert f"{year}-05-10 00:00:00' is no time" in read.rejects.filter(pl.col("line") == 4)["detail"][0]


@pytest.mark.parametrize("year", [1678, 1969, 1999, 2100, 2261])
def test_any_other_year_is_read_exactly(year: int) -> None:
    text = pl.DataFrame({"t": [f"{year}-01-01 00:00:00.25"]})
    expected = (
        pl.Series([f"{year}-01-01"]).str.to_date().cast(pl.Datetime("ms")).dt.epoch("ms")[0] * 10**6 + 250_000_000
    )
    assert text.select(utc_ns(pl.col("t"))).item() == expected
    read = read_all(FORMAT, HEADER + ROW.replace("2024", str(year)))
    assert read.zero_s == pytest.approx((expected - 250_000_000) / 1e9 + 129 * 86400, abs=2 * 86400)


@pytest.mark.parametrize("blank", ["\n", " \n\t\r\n", "\u00a0\n", "\ufeff", "\ufeff\n"])
def test_blank_lines_before_the_header_are_no_rows(blank: str) -> None:
    read = read_all(FORMAT, blank + HEADER + ROW)
    assert (read.lines, read.rows["line"].to_list()) == (1, [blank.count("\n") + 2])


@pytest.mark.parametrize("end", ["\r", "\x0b", "\u2028", "\x1c"])
def test_a_row_that_hides_in_the_line_of_the_header_is_not_lost(end: str) -> None:
    with pytest.raises(DataError) as error:
        read_all(FORMAT, HEADER.replace("\n", end) + ROW + ROW)
    assert "is missing; found" in str(error.value)
    assert len(str(error.value).splitlines()) == 1
