from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestar.data.parsing.json_lines import Refused
from lodestar.data.parsing.moments import elapsed_ms, moment_ns, stamp_ns
from lodestar.data.reasons import Reason


@given(st.integers(-(2**63) + 1024, 2**63 - 1024))
def test_nanoseconds_are_kept_exactly(at_ns: int) -> None:
    assert stamp_ns({"a": {"ns": at_ns}}, "a.ns") == at_ns


@pytest.mark.parametrize("value", [2**63, 1e30, 1.5, -(2**70)])
def test_what_no_count_of_nanoseconds_can_be_is_refused(value: float) -> None:
    with pytest.raises(Refused) as error:
        stamp_ns({"ns": value}, "ns")
    assert error.value.reason is Reason.OUT_OF_UNIT


def test_seconds_beyond_what_nanoseconds_can_count_are_refused() -> None:
    assert moment_ns({"t": -1.25}, "t") == -1_250_000_000
    with pytest.raises(Refused, match=r"t is 1\.7e\+12, expected seconds"):
        moment_ns({"t": 1.7e12}, "t")


@pytest.mark.parametrize("read", [moment_ns, stamp_ns])
def test_an_absent_time_is_none_unless_it_is_needed(read: Any) -> None:
    assert read({}, "t") is None
    with pytest.raises(Refused, match="t is missing"):
        read({}, "t", required=True)


def test_an_end_before_its_start_is_refused() -> None:
    assert elapsed_ms(None, 1.0, "a", "b") is None
    with pytest.raises(Refused, match="b at 1 s is before a at 2 s") as error:
        elapsed_ms(2.0, 1.0, "a", "b")
    assert error.value.reason is Reason.BACKWARDS
