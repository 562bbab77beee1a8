from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestar.reports.numbers import decimals, interval, number, percent, plain


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_what_is_not_there_is_a_dash(value: float | None) -> None:
    assert number(value) == percent(value) == "–"
    assert interval(None) == "–"


def test_nothing_is_never_negative() -> None:
    assert number(-0.001, 1) == number(-0.001, 1, signed=True) == "0.0"


@given(st.floats(-1e9, 1e9), st.integers(0, 4))
def test_a_number_reads_back_to_its_rounding(value: float, places: int) -> None:
    read = float(number(value, places).replace(",", "").replace("−", "-"))
    assert read == pytest.approx(round(value, places), abs=10.0**-places)


def test_a_column_shows_four_figures_of_its_largest() -> None:
    assert [decimals([value]) for value in (0.0, 0.5, 9.99, 38.2, 161.6, 12_337.0)] == [3, 4, 3, 2, 1, 0]


def test_any_json_value_has_a_line() -> None:
    assert plain({"rows": 1200, "by": ["a", None], "ok": True}) == "rows 1,200, by a, –, ok yes"
