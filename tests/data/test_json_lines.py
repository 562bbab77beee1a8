"""Large blocks of JSON Lines go the fast way only where every value is of its kind; the others lose one line each."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestar.data.formats.native import COLUMNS, native_schema
from lodestar.data.parsing.json_bulk import FEWEST_BYTES, BulkParser
from lodestar.data.parsing.json_census import census
from lodestar.data.parsing.json_lines import Decoder
from lodestar.data.reading import no_rejects
from lodestar.data.sources.blocks import Block

ROWS = 6000
PRESENT = pa.schema([column for column in COLUMNS if column.name in ("request", "candidates", "chosen", "outcome")])


def record(i: int) -> dict[str, Any]:
    candidates = [{"instance": f"10.0.0.{j}:8000", "hit_ratio": j / 8, "probability": 0.5} for j in range(2)]
    return {
        "request": {"request_id": f"r{i}", "arrived_at_s": i / 7, "prompt_tokens": i + 1, "output_tokens": 5},
        "candidates": candidates,
        "chosen": "10.0.0.1:8000",
        "outcome": {"ttft_ms": 10.5, "e2e_ms": 99.0, "status": "ok"},
    }


def block(lines: list[str]) -> Block:
    return Block(("\n".join(lines) + "\n").encode(), 1, no_rejects())


GOOD = [json.dumps(record(i)) for i in range(ROWS)]

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


def counted(value: Any) -> tuple[int, int, int]:
    """Strings, numbers and truths in a value: the oracle of the census."""
    if isinstance(value, dict | list):
        parts = [counted(each) for each in (value.values() if isinstance(value, dict) else value)]
        return tuple(map(sum, zip(*parts, strict=True))) if parts else (0, 0, 0)  # type: ignore[return-value]
    truth = isinstance(value, bool)
    return int(isinstance(value, str)), int(isinstance(value, int | float) and not truth), int(truth)


@given(value=json_values, indent=st.sampled_from([None, 1]))
def test_the_census_counts_as_a_walk_through_the_value_does(value: Any, indent: int | None) -> None:
    found = census(json.dumps(value, indent=indent).encode())
    assert (found.strings, found.numbers, found.others) == counted(value)


def test_the_fast_way_reads_what_the_slow_way_reads() -> None:
    whole = block(GOOD)
    assert len(whole.content) > FEWEST_BYTES
    fast = BulkParser().parsed(whole.content, PRESENT, ROWS)
    assert fast is not None
    small = [Decoder(PRESENT, native_schema()).decoded(block(GOOD[i : i + 500])).columns for i in range(0, ROWS, 500)]
    slow = pa.concat_tables(small).select(fast.column_names)
    for name in ("request_id", "arrived_at_s", "prompt_tokens"):
        assert [row[name] for row in fast["request"].to_pylist()] == [row[name] for row in slow["request"].to_pylist()]
    assert fast["chosen"].to_pylist() == slow["chosen"].to_pylist()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("request", "prompt_tokens"), "5"),
        (("request", "prompt_tokens"), True),
        (("request", "request_id"), 5),
        (("request", "block_ids"), [1, 2.5]),
        (("outcome", "ttft_ms"), [1]),
        (("chosen",), {"name": "a"}),
        (("candidates",), "none"),
        (("outcome", "status"), False),
    ],
)
def test_a_value_of_another_kind_in_a_large_block_costs_its_own_line_alone(path: tuple[str, ...], value: Any) -> None:
    odd = record(7)
    inner = odd
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    lines = [*GOOD[:3000], json.dumps(odd), *GOOD[3000:]]
    done = Decoder(COLUMNS, native_schema()).decoded(block(lines))
    assert done.rejects["line"].to_list() == [3001]
    assert (done.columns.num_rows, done.lines) == (ROWS, ROWS + 1)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"request": {"request_id": "a", "prompt_tokens": 1, "prompt_tokens": 2}}', "bad-json"),
        ('{"request": {"request_id": "a", "prompt_tokens": NaN}}', "not-finite"),
        ("{" * 50_000, "bad-json"),
        ('{"request": {"request_id": "a", "prompt_tokens": 1}} {}', "bad-json"),
        ("not json", "bad-json"),
    ],
)
def test_a_broken_line_in_a_large_block_is_refused_with_its_reason(line: str, reason: str) -> None:
    done = Decoder(COLUMNS, native_schema()).decoded(block([*GOOD[:100], line, *GOOD[100:]]))
    assert done.rejects.select("line", "reason").rows() == [(101, reason)]
    assert done.columns.num_rows == ROWS


def test_keys_that_are_not_known_are_not_looked_at_and_none_is_lost() -> None:
    late = record(0) | {"policy": "p", "extra": {"deep": [1]}}
    lines = [*GOOD, json.dumps(late)]
    decoder = Decoder(COLUMNS, native_schema())
    decoder.decoded(block(GOOD))  # which has no such keys
    done = decoder.decoded(block(lines))
    assert done.columns["policy"].to_pylist()[-1] == "p"
    assert len(done.rejects) == 0
