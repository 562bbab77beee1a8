from __future__ import annotations

from pathlib import Path

import pytest

from lodestar.data.errors import ConfigError
from lodestar.data.mapping.recipe import (
    CANDIDATE_FIELDS,
    COLUMN_KEYS,
    REQUEST_FIELDS,
    TIMES,
    TOP,
    load_mapping,
    units_of,
)

WHOLE = 'kind = "csv"\n[fields]\nprompt_tokens = "isl"\n'


def load(folder: Path, text: str) -> object:
    path = folder / "map.toml"
    path.write_text(text)
    return load_mapping(path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("kind = ", "no TOML"),
        ("[fields]\nprompt_tokens = 'isl'", "kind is missing"),
        (WHOLE.replace("csv", "cvs"), "did you mean 'csv'"),
        ("nul = ['']\n" + WHOLE, "key 'nul' is not known; did you mean 'null'"),
        (WHOLE + "ttft = 'x'", "field in [fields] 'ttft' is not known; did you mean 'ttft_ms'"),
        (WHOLE + "ttft_ms = { colum = 'x' }", "did you mean 'column'"),
        (WHOLE + "ttft_ms = { unit = 's' }", "names no column"),
        (WHOLE + "ttft_ms = { column = 'x', unit = 'sec' }", "Known: ms, ns, s, us"),
        (WHOLE + "output_tokens = { column = 'x', unit = 's' }", "expected none"),
        (WHOLE + "arrived_at = 'x'", "has no unit"),
        (WHOLE + "arrived_at = { column = 'x', unit = 'iso', zone = 'Mars/Base' }", "zone 'Mars/Base'"),
        (WHOLE + "arrived_at = { column = 'x', unit = 'iso', layout = '%H:%M' }", "with year and hour"),
        (WHOLE + "ttft_ms = { column = 'x', scale = 'two' }", "scale is 'two'"),
        (WHOLE + "ttft_ms = 7", "expected a column's name"),
        (WHOLE + "block_ids = 'x'", "without block_tokens"),
        (WHOLE + "[constants]\nprompt_tokens = 5", "both in [fields] and in [constants]"),
        (WHOLE + "[constants]\npolicy = 5", "expected a text"),
        (WHOLE + "[constants]\nttft_ms = true", "expected a number"),
        (WHOLE + "[csv]\ndelimiter = ',,'", "expected one character"),
        (WHOLE + "[csv]\nheader = 'no'", "expected a bool"),
        (WHOLE + "[candidates]\nlist = 'x'", "has no fields"),
        (WHOLE + "[candidates.fields]\nhit_ratio = 'x'", "needs {instance} in every column"),
        (WHOLE + "[candidates]\nlist = 'x'\n[candidates.fields]\nhit_ratio = 'y'", "for JSON Lines and Parquet"),
        (WHOLE + "[candidates.fields]\nhit_ratios = '{instance}-x'", "did you mean 'hit_ratio'"),
        ('kind = "csv"\nnull = 5\n', "expected texts"),
        ('kind = "csv"\n', "prompt_tokens is not mapped"),
        ('kind = "csv"\nfields = 5\n', "expected a table"),
    ],
)
def test_what_is_not_usable_is_one_line_with_the_file(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as told:
        load(tmp_path, text)
    assert complaint in str(told.value)
    assert "map.toml" in str(told.value)
    assert "\n" not in str(told.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_mapping(tmp_path / "none.toml")


def test_the_reference_names_every_key_field_and_unit() -> None:
    text = (Path(__file__).parents[2] / "docs" / "mapping.md").read_text()
    units = {
        unit for field in (*REQUEST_FIELDS, *CANDIDATE_FIELDS) for unit in units_of(field) if field != "arrived_at"
    }
    told = {*TOP, *COLUMN_KEYS, *REQUEST_FIELDS, *CANDIDATE_FIELDS, *units, *TIMES} - {"relative_ms", "relative_us"}
    assert [name for name in told if f"`{name}`" not in text and f"`{name}." not in text] == ["csv"][: "`csv`" in text]
