"""A first draft of a mapping file: every column of a log, with what it may be and why that was thought."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Final

from lodestar.data import schema as s
from lodestar.data.mapping.column_samples import ColumnSample, Table, sampled
from lodestar.data.mapping.guesses import field_of, status_values, unit_of
from lodestar.data.mapping.recipe import ARRIVED_AT, CANDIDATE_FIELDS, INSTANCE_HOLE, REQUEST_FIELDS, TEXTS
from lodestar.data.sources.source import Source

__all__ = ["suggest_map"]

SHOWN: Final = 3
SHOWN_CHARACTERS: Final = 40
SEPARATOR: Final = re.compile(r"[-._:/]")
NAMES: Final = (s.INSTANCE, "name", "pod", "pod_name", "worker", "worker_id", "endpoint", "id", "url", "replica")
BLOCK_TOKENS: Final = 16
HEAD: Final = """\
# A draft: see docs/mapping.md for every key. Check what is marked as guessed, then
#   lodestar ingest FILE --map THIS_FILE --dataset NAME
"""

Wide = dict[str, dict[str, str]]


def suggest_map(source: Source) -> str:
    r"""Write a draft of the mapping file for a source.

    >>> from lodestar.data.sources.source import from_bytes
    >>> draft = suggest_map(from_bytes(b"isl,ttft\n100,0.25\n"))
    >>> [line for line in draft.splitlines() if line.startswith(("isl", "prompt", "ttft"))][0]
    'prompt_tokens = "isl"  # guessed: by its name'
    """
    table = sampled(source)
    wide, taken = _wide(table)
    rest = {name: column for name, column in table.columns.items() if name not in taken}
    chosen = _chosen(rest, REQUEST_FIELDS)
    lines = [*_top(table, chosen), "", "[fields]", *_fields(rest, chosen, table)]
    if s.PROMPT_TOKENS not in chosen:
        lines.append(f"# {s.PROMPT_TOKENS} = ?  # needed: the column with the tokens of each prompt was not found")
    lines += _not_understood(rest, chosen)
    lines += _wide_lines(table, wide) or _list_lines(table)
    return HEAD + "\n".join(lines) + "\n"


def _top(table: Table, chosen: Mapping[str, str]) -> Iterator[str]:
    markers = list(dict.fromkeys(marker for column in table.columns.values() for marker in column.markers))
    yield f"kind = {_quoted(table.kind)}"
    yield f"null = [{', '.join(map(_quoted, ['', *markers]))}]" + (
        "  # guessed: found among numbers" if markers else ""
    )
    if s.BLOCK_IDS in chosen:
        yield f"block_tokens = {BLOCK_TOKENS}  # guessed: tokens of one block, which the log does not tell"
    if table.kind == "csv" and (table.delimiter != "," or not table.header):
        yield from ("", "[csv]", f"delimiter = {_quoted(table.delimiter)}", f"header = {str(table.header).lower()}")


def _chosen(columns: Mapping[str, ColumnSample], fields: tuple[str, ...]) -> dict[str, str]:
    """Return field → the column whose name means it most, of those that hold what it can be."""
    found: dict[str, tuple[int, str]] = {}
    for name, column in columns.items():
        guess = field_of(name, fields)
        if guess and column.known and _can_be(guess[0], column) and guess[1] < found.get(guess[0], (999, ""))[0]:
            found[guess[0]] = guess[1], name
    return {field: name for field, (_, name) in found.items()}


def _can_be(field: str, column: ColumnSample) -> bool:
    if field == ARRIVED_AT:
        return unit_of(field, column) is not None
    if field == s.STATUS:
        return status_values(column) is not None
    if field == s.BLOCK_IDS:
        return column.kind == "lists"
    return column.kind in ("text", "whole numbers", "times") if field in TEXTS else bool(column.numbers)


def _fields(columns: Mapping[str, ColumnSample], chosen: Mapping[str, str], table: Table) -> Iterator[str]:
    for field in REQUEST_FIELDS:
        if field in chosen:
            column = columns[chosen[field]]
            yield f"# {_described(column)}"
            yield _mapped(field, column, column.name, _beside(column.name, table))


def _beside(name: str, table: Table) -> str | None:
    """Return the unit that a record names beside a value, where it is always the same."""
    unit = table.columns.get(f"{name.removesuffix('.value')}.unit")
    return unit.known[0] if unit is not None and len(set(unit.known)) == 1 else None


def _mapped(field: str, column: ColumnSample, name: str, beside: str | None = None) -> str:
    unit = unit_of(field, column, beside)
    keys, why = {"column": _quoted(name)}, ["by its name"]
    if unit is not None and unit.name is not None:
        keys["unit"] = _quoted(unit.name)
        why.append(f"{unit.name} {unit.why}")
    if field == s.STATUS:
        values = status_values(column) or {}
        keys["values"] = "{ " + ", ".join(f"{_quoted(k)} = {_quoted(v)}" for k, v in values.items()) + " }"
    table = ", ".join(f"{key} = {value}" for key, value in keys.items())
    return f"{field} = {keys['column'] if len(keys) == 1 else '{ ' + table + ' }'}  # guessed: {'; '.join(why)}"


def _described(column: ColumnSample) -> str:
    shown = [_short(value) for value in list(dict.fromkeys(column.known))[:SHOWN]]
    examples = f", such as {', '.join(shown)}" if shown else ""
    return f"{_short(column.name, 200)}: {column.kind}, {column.null_share:.1%} null{examples}"


def _not_understood(columns: Mapping[str, ColumnSample], chosen: Mapping[str, str]) -> list[str]:
    rest = [column for name, column in columns.items() if name not in chosen.values()]
    return ["", "# Not understood:", *(f"#   {_described(column)}" for column in rest)] if rest else []


def _wide(table: Table) -> tuple[Wide, set[str]]:
    """Find columns that come once for each instance; return pattern → instance → column, and all of these columns."""
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for name in (name for name in table.columns if not field_of(name, (*REQUEST_FIELDS, *CANDIDATE_FIELDS))):
        cuts = (
            cut for cut in SEPARATOR.finditer(name) if cut.start() and field_of(name[cut.end() :], CANDIDATE_FIELDS)
        )
        # The first cut leaves most of the name to the field: kv_hit before hit.
        if cut := next(cuts, None):
            found[f"{INSTANCE_HOLE}{name[cut.start() :]}"][name[: cut.start()]] = name
    sets = Counter(frozenset(of) for of in found.values() if len(of) > 1)
    if not sets:
        return {}, set()
    instances = sets.most_common(1)[0][0]
    kept = {pattern: of for pattern, of in found.items() if of.keys() == instances}
    return kept, {name for name in table.columns if any(_of(instance, name) for instance in instances)}


def _of(instance: str, name: str) -> bool:
    return name.startswith(instance) and SEPARATOR.match(name[len(instance) :]) is not None


def _wide_lines(table: Table, wide: Wide) -> list[str]:
    fields: dict[str, str] = {}
    for pattern in wide:
        guess = field_of(pattern.removeprefix(INSTANCE_HOLE)[1:], CANDIDATE_FIELDS)
        if guess:
            fields.setdefault(guess[0], pattern)
    if not fields:
        return []
    instances = list(next(iter(wide.values())))
    lines = [
        "",
        "[candidates.fields]",
        f"# one column for each of {len(instances)}: {_short(', '.join(instances), 120)}",
    ]
    for field, pattern in fields.items():
        every = ColumnSample(pattern, [v for name in wide[pattern].values() for v in table.columns[name].values])
        lines += [f"# {_described(every)}", _mapped(field, every, pattern)]
    return lines


def _list_lines(table: Table) -> list[str]:
    """Find the list of objects that tells most of what a candidate can tell."""
    told = {name: _chosen(columns, CANDIDATE_FIELDS) for name, columns in table.lists.items()}
    best = max(told, key=lambda name: len(told[name]), default=None)
    named = next((name for name in NAMES if best is not None and name in table.lists[best]), None)
    if best is None or named is None or not told[best]:
        return [line for name in table.lists for line in ("", f"# Not understood: {_short(name)}, lists of objects")]
    columns = table.lists[best]
    lines = ["", "[candidates]", f"list = {_quoted(best)}  # guessed: lists of objects with fields of candidates"]
    lines += [f"instance = {_quoted(named)}  # guessed: by its name", "", "[candidates.fields]"]
    for field, name in told[best].items():
        lines += [f"# {_described(columns[name])}", _mapped(field, columns[name], name)]
    rest = [column for name, column in columns.items() if name != named and name not in told[best].values()]
    return lines + [f"# Not understood: {_described(column)}" for column in rest]


def _quoted(text: str) -> str:
    """Write a TOML string: as JSON, but for what JSON leaves as it is and TOML does not take."""
    sound = text.encode("utf-8", "replace").decode()
    return json.dumps(sound, ensure_ascii=False).replace("\x7f", "\\u007f")


def _short(text: str, most: int = SHOWN_CHARACTERS) -> str:
    plain = "".join(each if each.isprintable() else "?" for each in text)
    return plain if len(plain) <= most else f"{plain[: most - 1]}…"
