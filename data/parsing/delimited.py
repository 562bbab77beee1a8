"""CSV blocks to typed columns, fast for good lines, with the reason for every line that does not fit its header."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.csv as pac

from lodestar.data.errors import DataError
from lodestar.data.reading import LINE, MOST_WHOLE, no_rejects, rejects_of
from lodestar.data.reasons import Reason
from lodestar.data.sources.blocks import Block, count_of
from lodestar.data.sources.source import Source, printable

__all__ = ["Fields", "csv_parts", "header_of", "raw_of", "time_of", "typed", "utc_ns"]

QUOTE: Final = b'"'
YEARS: Final = (1678, 2261)  # that nanoseconds since 1970 reach in 64 bits
ZONE: Final = r"(Z|[+-]\d\d:?\d\d)$"
REACHED_YEARS: Final = (1678, 2261)  # whole ones, by nanoseconds in 64 bits


@dataclass(frozen=True, slots=True)
class Fields:
    """Which columns of a CSV file to read, and as what; columns that the header lacks are left out.

    Attributes:
        texts: as they stand, without the blanks around them.
        numbers: as Float64, or Int64; an empty field is NULL.
        whole: those of the numbers that may only be whole.
        times: as nanoseconds since 1970, UTC where the text names no zone.
    """

    texts: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    times: tuple[str, ...] = ()

    def within(self, header: list[str]) -> Fields:
        """Keep the columns that the header has."""
        kept = (
            [name for name in names if name in header] for names in (self.texts, self.numbers, self.whole, self.times)
        )
        return Fields(*map(tuple, kept))

    @property
    def columns(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.texts, *self.numbers, *self.times)


class Part(NamedTuple):
    """A block's good lines as columns with `line`, its rejects, how many lines it has, and the lines themselves.

    `lacks_zone` tells that a time of it names no zone.
    """

    columns: pl.DataFrame
    rejects: pl.DataFrame
    lines: int
    block: Block
    lacks_zone: bool


def header_of(head: bytes, separator: str = ",") -> list[str]:
    r"""Read the names in the first line that is not empty.

    >>> header_of(b"a, b\n1,2\n")
    ['a', 'b']
    """
    text = head.removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="replace")
    first = next((line for line in text.split("\n") if line.strip()), "")
    return [name.strip() for name in _split(first, separator)]


def csv_parts(source: Source, fields: Fields, required: tuple[str, ...] = (), separator: str = ",") -> Iterator[Part]:
    """Read a CSV source with a header, block by block."""
    header: list[str] = []
    for block in source.blocks():
        if not header:
            place, start = _header_place(block.content)
            if not start:
                continue
            header = _sound_header(header_of(block.content[:start], separator), required)
            fields = fields.within(header)
            block = Block(block.content[start:], block.first_line + place + 1, block.aside)
        yield _part(block, header, fields, separator)


def _header_place(content: bytes) -> tuple[int, int]:
    """Return how many lines before the header are blank, and where the line after it starts, 0 if there is none."""
    place, start = 0, 0
    while end := content.find(b"\n", start) + 1:
        if content[start:end].decode().strip():
            return place, end
        place, start = place + 1, end
    return place, 0


def _sound_header(header: list[str], required: tuple[str, ...]) -> list[str]:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"column {twice[0]!r} is there twice; expected it once. Remove one")
    missing = [name for name in required if name not in header]
    if missing:
        found = printable(", ".join(header)[:200]) or "no header"
        raise DataError(f"column {missing[0]!r} is missing; found {found}. Choose another --format")
    return header


def _part(block: Block, header: list[str], fields: Fields, separator: str) -> Part:
    fast = _fast(block, header, fields, separator)
    if fast is not None:
        columns, zone = fast
        return Part(columns, no_rejects(), len(columns), block, bool(fields.times) and zone is None)
    lines = block.lines()
    split, misshapen = _split_lines(lines, header, fields.columns, separator)
    columns, unreadable = typed(split, fields)
    unzoned = split.select(pl.any_horizontal(*((~pl.col(n).str.contains(ZONE)).any() for n in fields.times), False))
    return Part(columns, pl.concat([misshapen, unreadable]), len(lines), block, bool(unzoned.item()))


def _fast(block: Block, header: list[str], fields: Fields, separator: str) -> tuple[pl.DataFrame, str | None] | None:
    """Read a block at once if every line of it is plain and good; return with it the zone of its times."""
    content, rows = block.content, block.rows
    # As many separators as there should be, and Arrow stops at a line with too many: then no line has too few.
    if not rows or QUOTE in content or count_of(ord(separator), content) != rows * (len(header) - 1):
        return None
    if fields.times and not (fields.times == (header[0],) and _of_this_century(content, rows)):
        return None
    for kind in (pa.timestamp("ns"), pa.timestamp("ns", "UTC")):
        types = dict.fromkeys(fields.texts, pa.string()) | dict.fromkeys(fields.numbers, pa.float64())
        types |= dict.fromkeys(fields.whole, pa.int64())
        table = _arrow(content, header, types | dict.fromkeys(fields.times, kind), separator)
        if table is not None or not fields.times:
            break
    if table is None or table.num_rows != rows:
        return None
    found = pl.from_arrow(table)
    assert isinstance(found, pl.DataFrame)
    blank = found.select(pl.any_horizontal(*(pl.col(n).str.contains(r"^\s|\s$").any() for n in fields.texts), False))
    odd = found.select(pl.any_horizontal(*((~pl.col(n).is_finite()).any() for n in fields.numbers), False))
    # Numbers that a float does not hold exactly are refused wherever they come from.
    large = found.select(pl.any_horizontal(*(pl.col(n).abs().max() > MOST_WHOLE for n in fields.whole), False))
    untimed = found.select(pl.any_horizontal(*(pl.col(n).is_null().any() for n in fields.times), False))
    if any(bool(check.item()) for check in (blank, odd, large, untimed)):
        return None
    number = pl.int_range(block.first_line, block.first_line + rows, dtype=pl.Int64, eager=True)
    columns = found.with_columns(*(pl.col(n).dt.epoch("ns") for n in fields.times), number.alias(LINE))
    return columns, kind.tz


def _of_this_century(content: bytes, rows: int) -> bool:
    """Tell whether every line starts with such a year: of years beyond its nanoseconds Arrow makes others."""
    return content.startswith(b"20") and content.count(b"\n20") == rows - 1


def _arrow(content: bytes, header: list[str], types: dict[str, pa.DataType], separator: str) -> pa.Table | None:
    try:
        return pac.read_csv(
            io.BytesIO(content),
            read_options=pac.ReadOptions(column_names=header, block_size=1 << 21),
            parse_options=pac.ParseOptions(delimiter=separator, quote_char=False, ignore_empty_lines=False),
            convert_options=pac.ConvertOptions(
                column_types=types, include_columns=list(types), null_values=[""], strings_can_be_null=False
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def _split_lines(
    lines: pl.DataFrame, header: list[str], wanted: tuple[str, ...], separator: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split `line`, `raw` into text columns plus `line`, and the rejects."""
    quoted = pl.col("raw").str.contains(QUOTE.decode(), literal=True)
    plain = lines.filter(~quoted).with_columns(pl.col("raw").str.split(separator).alias("fields"))
    odd = lines.filter(quoted)
    # Quotes are rare in logs of numbers, so only lines that hold one take Python's slower road.
    fields = pl.Series("fields", [_split(raw, separator) for raw in odd["raw"]], dtype=pl.List(pl.String))
    every = (
        pl.concat([plain, odd.with_columns(fields)]).sort(LINE).with_columns(pl.col("fields").list.len().alias("found"))
    )
    bad = every.filter(pl.col("found") != len(header))
    good = every.filter(pl.col("found") == len(header))
    columns = [pl.col("fields").list.get(header.index(name)).str.strip_chars().alias(name) for name in wanted]
    details = bad.select(pl.format("expected {} fields, found {}", pl.lit(len(header)), "found")).to_series()
    return good.select(LINE, *columns), rejects_of(bad[LINE], Reason.FIELD_COUNT, details, bad["raw"].to_list())


def typed(split: pl.DataFrame, fields: Fields) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Turn text columns into numbers and times; rows with text that is neither become rejects."""
    numbers = {name: pl.col(name).cast(pl.Float64, strict=False) for name in fields.numbers}
    # An empty field is NULL; a filled one that is no number is a reject.
    empty = {name: pl.col(name).fill_null("") == "" for name in fields.numbers}
    steps: list[tuple[Reason, list[pl.Expr]]] = [
        (Reason.WRONG_TYPE, [_told(n, value.is_null() & ~empty[n], "is no number") for n, value in numbers.items()]),
        (Reason.NOT_FINITE, [_told(n, ~value.is_finite(), "is not finite") for n, value in numbers.items()]),
        (Reason.WRONG_TYPE, [_told(n, ~_whole(numbers[n]), "is no whole number") for n in fields.whole]),
        (Reason.WRONG_TYPE, [_told(n, utc_ns(pl.col(n)).is_null(), "is no time") for n in fields.times]),
    ]
    rejects = [no_rejects()]
    for reason, complaints in steps:
        judged = split.with_columns(pl.coalesce(*complaints, pl.lit(None, dtype=pl.String)).alias("detail"))
        bad = judged.filter(pl.col("detail").is_not_null())
        rejects.append(rejects_of(bad[LINE], reason, bad["detail"]))
        split = judged.filter(pl.col("detail").is_null()).drop("detail")
    times = {name: utc_ns(pl.col(name)) for name in fields.times}
    return split.with_columns(value.alias(name) for name, value in {**numbers, **times}.items()), pl.concat(rejects)


def _whole(value: pl.Expr) -> pl.Expr:
    return ((value % 1 == 0) & (value.abs() <= MOST_WHOLE)).fill_null(True)


def _told(name: str, broken: pl.Expr, what: str) -> pl.Expr:
    return pl.when(broken).then(
        pl.format("column '{}': '{}' {}", pl.lit(name), pl.col(name).str.slice(0, 80), pl.lit(what))
    )


def utc_ns(column: pl.Expr) -> pl.Expr:
    """Read text as a time, in nanoseconds since 1970; NULL where it is none. Without a zone it is UTC.

    >>> text = pl.DataFrame({"t": ["1970-01-01 00:00:01.5", "1970-01-01T02:00:00+02:00", "x"]})
    >>> text.select(utc_ns(pl.col("t"))).rows()
    [(1500000000,), (0,), (None,)]
    """
    text = column.str.replace("T", " ", literal=True).str.replace(r"Z$", "+00:00")
    naive, zoned = (_in_reach(text, layout) for layout in ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f%#z"))
    both = pl.coalesce(naive, zoned.dt.convert_time_zone("UTC").dt.replace_time_zone(None))
    return both.dt.epoch("ns")


def _in_reach(text: pl.Expr, layout: str) -> pl.Expr:
    """Read times of the years that nanoseconds reach; of any other year Polars would make one of these."""
    year = text.str.to_datetime(layout, time_unit="us", strict=False).dt.year()
    reached = year.is_between(*REACHED_YEARS)
    return pl.when(reached).then(text).str.to_datetime(layout, time_unit="ns", strict=False)


def time_of(text: pl.Expr, layout: str) -> pl.Expr:
    """Read times in nanoseconds; years that these do not reach are no time, where Polars would give another one."""
    year = text.str.to_datetime(layout, time_unit="us", strict=False).dt.year()
    return pl.when(year.is_between(*YEARS)).then(text).str.to_datetime(layout, time_unit="ns", strict=False)


def raw_of(block: Block) -> Callable[[pl.Series], list[str | None]]:
    r"""Make the look-up of `Reading.raw` for the lines of a block, which is split only if it is asked.

    >>> from lodestar.data.reading import no_rejects
    >>> raw_of(Block(b"a\nb\n", 5, no_rejects()))(pl.Series([6]))
    ['b']
    """

    def look_up(wanted: pl.Series) -> list[str | None]:
        lines = block.content.decode().split("\n")
        return [lines[line - block.first_line].rstrip("\r") for line in wanted]

    return look_up


def _split(raw: str, separator: str) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(raw), delimiter=separator), [])
    except csv.Error:
        return []
