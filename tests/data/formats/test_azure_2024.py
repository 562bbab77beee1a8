"""Rows as the traces of 2024 have them: a zone on every time, and no fraction where it would be zero."""

from __future__ import annotations

from lodestar.data import schema as s
from lodestar.data.formats.azure import FORMAT
from readings import read_all

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"


def test_times_with_a_zone_are_read_with_and_without_a_fraction() -> None:
    lines = ["2024-05-10 00:00:00.009930+00:00,2162,5", "2024-05-12 00:00:00+00:00,76,15"]
    read = read_all(FORMAT, "\n".join([HEADER, *lines]))
    assert read.rows[s.ARRIVED_AT_S].to_list() == [0.0, 172_799.990_07]
    assert (read.clock, read.zero_s, read.notes) == ("unix", 1_715_299_200.009_93, set())


def test_a_file_of_whole_seconds_is_read() -> None:
    read = read_all(FORMAT, f"{HEADER}\n2024-05-12 00:00:00+00:00,76,15\n2024-05-12 00:00:01+00:00,7,1\n")
    assert read.rows[s.ARRIVED_AT_S].to_list() == [0.0, 1.0]
