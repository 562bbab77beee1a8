"""A mapping file: which column of a log is which field, in which unit, and what stands for nothing."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from lodestar.data import schema as s
from lodestar.data.errors import ConfigError, unknown

__all__ = [
    "ARRIVED_AT",
    "CANDIDATE_FIELDS",
    "COUNTS",
    "KINDS",
    "REQUEST_FIELDS",
    "TEXTS",
    "TIMES",
    "Column",
    "Recipe",
    "load_mapping",
    "units_of",
]

ARRIVED_AT: Final = "arrived_at"
INSTANCE_HOLE: Final = "{instance}"
KINDS: Final = ("csv", "jsonl", "parquet")
DURATIONS_MS: Final = (*s.OUTCOMES_LATENCIES, *s.PHASES, s.SNAPSHOT_AGE_MS)
COUNTS: Final = (s.PROMPT_TOKENS, s.OUTPUT_TOKENS, s.CACHED_TOKENS, s.DISPATCH_NUMBER)
TEXTS: Final = (s.REQUEST_ID, s.SESSION_ID, s.POLICY, s.INSTANCE, s.MODEL_VERSION, s.STATUS)
RATIOS: Final = (s.HIT_RATIO, s.KV_USAGE_RATIO, s.PROBABILITY)
#: What a column of one row a request may be.
REQUEST_FIELDS: Final = (ARRIVED_AT, s.BLOCK_IDS, *TEXTS, *COUNTS, *DURATIONS_MS)
#: What a column of one candidate may be.
CANDIDATE_FIELDS: Final = (*s.SNAPSHOT_FIELDS, s.SCORE, s.PROBABILITY)
#: Unit → what it counts, in milliseconds, seconds, shares of 1 and nanoseconds.
MS: Final = {"ms": 1.0, "s": 1e3, "us": 1e-3, "ns": 1e-6}
SECONDS: Final = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
SHARES: Final = {"ratio": 1.0, "percent": 0.01}
NANOSECONDS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
TIMES: Final = ("iso", *(f"unix_{unit}" for unit in NANOSECONDS), *(f"relative_{unit}" for unit in NANOSECONDS))
TOP: Final = ("kind", "null", "block_tokens", "csv", "fields", "constants", "candidates")
LAYOUT_DATES: Final = ("%Y", "%y", "%F", "%D", "%c", "%s")
LAYOUT_TIMES: Final = ("%H", "%I", "%T", "%R", "%c", "%s")
COLUMN_KEYS: Final = ("column", "unit", "scale", "null", "zone", "layout", "values")


def units_of(name: str) -> dict[str, float]:
    """Return the units that a field may be given in, the first being the one that it has if none is named.

    >>> units_of("ttft_ms")["s"], units_of("prompt_tokens"), list(units_of("hit_ratio"))
    (1000.0, {}, ['ratio', 'percent'])
    """
    if name in DURATIONS_MS:
        return MS
    if name == ARRIVED_AT:
        return dict.fromkeys(TIMES, 1.0)
    if name == s.LAST_ACCESS_AGE_S:
        return SECONDS
    return SHARES if name in RATIOS else {}


@dataclass(frozen=True, slots=True)
class Column:
    """Where a field comes from.

    Attributes:
        column: its name; a dotted path in JSON and Parquet; with ``{instance}`` in it, one column an instance.
        unit: see `units_of`.
        scale: what a number is multiplied with, after the unit.
        null: texts that stand for nothing here, beside those of the whole file.
        zone: of times that name none.
        layout: of times that are not ISO 8601, as ``strptime`` takes it.
        values: text of the log → text of the field; then any other text is refused.
    """

    column: str
    unit: str | None = None
    scale: float = 1.0
    null: tuple[str, ...] = ()
    zone: str | None = None
    layout: str | None = None
    values: Mapping[str, str] = field(default_factory=dict)

    def factor(self, name: str) -> float:
        """Return what a number is to be multiplied with to be the field of this name."""
        units = units_of(name)
        return self.scale * (units[self.unit or next(iter(units))] if units and name != ARRIVED_AT else 1.0)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A mapping file as it was read.

    Attributes:
        kind: one of `KINDS`.
        sha256: of the file.
        fields: field → where it comes from.
        constants: field → its value in every row.
        null: texts that stand for nothing in every column.
        block_tokens: prompt tokens in one block, where block ids are mapped.
        delimiter: of CSV.
        header: CSV starts with the names of its columns; else they are ``column_1``, ``column_2``, …
        candidate_fields: field of a candidate → where it comes from.
        candidate_list: the column that holds the list of candidates; None where each instance has columns of its own.
        candidate_name: what of a listed candidate names its instance.
    """

    kind: str
    sha256: str
    fields: Mapping[str, Column]
    constants: Mapping[str, str | float]
    null: tuple[str, ...] = ("",)
    block_tokens: int | None = None
    delimiter: str = ","
    header: bool = True
    candidate_fields: Mapping[str, Column] = field(default_factory=dict)
    candidate_list: str | None = None
    candidate_name: str = s.INSTANCE


def load_mapping(path: Path) -> Recipe:
    """Read a mapping file.

    Raises:
        ConfigError: in one line, what of it is not usable.
    """
    try:
        content = path.read_bytes()
        tree = tomllib.loads(content.decode())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; expected a mapping file. Check --map") from error
    except ValueError as error:
        raise ConfigError(f"{path}: no TOML ({error}); expected a mapping file. Correct it") from error
    try:
        return _recipe(tree, hashlib.sha256(content).hexdigest())
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _recipe(tree: dict[str, Any], sha256: str) -> Recipe:
    _only(tree, TOP, "key")
    csv, candidates = _table(tree, "csv"), _table(tree, "candidates")
    _only(csv, ("delimiter", "header"), "key of [csv]")
    _only(candidates, ("list", "instance", "fields"), "key of [candidates]")
    fields = _columns(_table(tree, "fields"), REQUEST_FIELDS, "[fields]")
    constants = _table(tree, "constants")
    _only(constants, (*TEXTS, *COUNTS, *DURATIONS_MS), "field in [constants]")
    recipe = Recipe(
        kind=_kind(tree),
        sha256=sha256,
        fields=fields,
        constants={name: _constant(name, value) for name, value in constants.items()},
        null=_texts(tree.get("null", [""]), "null"),
        block_tokens=_value(tree, "block_tokens", int, None),
        delimiter=_value(csv, "delimiter", str, ","),
        header=_value(csv, "header", bool, True),
        candidate_fields=_columns(_table(candidates, "fields"), CANDIDATE_FIELDS, "[candidates.fields]"),
        candidate_list=_value(candidates, "list", str, None),
        candidate_name=_value(candidates, "instance", str, s.INSTANCE),
    )
    _check(recipe, candidates)
    return recipe


def _check(recipe: Recipe, candidates: dict[str, Any]) -> None:
    """Refuse what contradicts itself."""
    twice = sorted(set(recipe.fields) & set(recipe.constants))
    wide = [name for name, column in recipe.candidate_fields.items() if INSTANCE_HOLE in column.column]
    problems = {
        f"{twice and twice[0]!r} is both in [fields] and in [constants]; expected one. Remove the other": bool(twice),
        "prompt_tokens is not mapped; expected the column with the tokens of the prompt. Add it to [fields]": (
            s.PROMPT_TOKENS not in {*recipe.fields, *recipe.constants}
        ),
        "block_ids are mapped without block_tokens; expected the tokens of a block. Add block_tokens = 16, or yours": (
            s.BLOCK_IDS in recipe.fields and recipe.block_tokens is None
        ),
        f"block_tokens is {recipe.block_tokens}; expected 1 or more. Correct it": (
            recipe.block_tokens is not None and recipe.block_tokens < 1
        ),
        f"csv.delimiter is {recipe.delimiter!r}; expected one character. Correct it": (
            len(recipe.delimiter.encode()) != 1 or recipe.delimiter in '"\r\n'
        ),
        "[candidates] has no fields; expected one at least in [candidates.fields]. Add it, or remove [candidates]": (
            bool(candidates) and not recipe.candidate_fields
        ),
        "[candidates] with list has columns with {instance}; expected names within the list. Remove one of both": (
            recipe.candidate_list is not None and bool(wide)
        ),
        "[candidates] without list needs {instance} in every column, to tell whose it is. Add it, or name the list": (
            recipe.candidate_list is None and len(wide) < len(recipe.candidate_fields)
        ),
        "[candidates] list is for JSON Lines and Parquet; expected columns with {instance} in CSV. Name them": (
            recipe.candidate_list is not None and recipe.kind == "csv"
        ),
    }
    for problem, there in problems.items():
        if there:
            raise ConfigError(problem)


def _kind(tree: dict[str, Any]) -> str:
    kind: str | None = _value(tree, "kind", str, None)
    if kind is None:
        raise ConfigError(f'kind is missing; expected one of {", ".join(KINDS)}. Add kind = "csv" at the top')
    if kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    return kind


def _columns(table: dict[str, Any], known: Iterable[str], where: str) -> dict[str, Column]:
    _only(table, known, f"field in {where}")
    return {name: _column(name, value, f"{where} {name}") for name, value in table.items()}


def _column(name: str, value: Any, where: str) -> Column:
    if isinstance(value, str):
        value = {"column": value}
    if not isinstance(value, dict):
        raise ConfigError(f"{where} is {value!r:.80}; expected a column's name or a table. Correct it")
    _only(value, COLUMN_KEYS, f"key of {where}")
    column = _value(value, "column", str, None)
    if not column:
        raise ConfigError(f'{where} names no column; expected column = "…". Add it')
    unit = _unit(name, value, where)
    return Column(
        column=column,
        unit=unit,
        scale=float(_value(value, "scale", (int, float), 1.0)),
        null=_texts(value.get("null", []), f"{where} null"),
        zone=_zone(_value(value, "zone", str, None), where),
        layout=_layout(_value(value, "layout", str, None), where),
        values=_values(value.get("values", {}), where),
    )


def _unit(name: str, value: dict[str, Any], where: str) -> str | None:
    unit: str | None = _value(value, "unit", str, None)
    units = units_of(name)
    if unit is None and name == ARRIVED_AT:
        raise ConfigError(f"{where} has no unit; expected one of {', '.join(TIMES)}. Add it")
    if unit is not None and unit not in units:
        if not units:
            raise ConfigError(f"{where} has unit {unit!r}; expected none, since it is a text or a count. Remove it")
        raise unknown(f"unit of {where}", unit, units)
    return unit


def _zone(name: str | None, where: str) -> str | None:
    try:
        return None if name is None else ZoneInfo(name).key
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError(
            f"{where} has zone {name!r}, which is not known; expected a name such as Europe/Berlin or UTC. Correct it"
        ) from error


def _layout(layout: str | None, where: str) -> str | None:
    if layout is None:
        return None
    if not all(any(part in layout for part in parts) for parts in (LAYOUT_DATES, LAYOUT_TIMES)):
        raise ConfigError(
            f'{where} has layout {layout!r}; expected one with year and hour, such as "%d/%m/%Y %H:%M:%S". Correct it'
        )
    # Python's %f counts digits after the point as a fraction; chrono's counts nanoseconds.
    return layout.replace(".%f", "%.f")


def _constant(name: str, value: Any) -> str | float:
    if name in TEXTS and isinstance(value, str):
        return value
    if name not in TEXTS and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    expected = "text" if name in TEXTS else "number"
    raise ConfigError(f"[constants] {name} is {value!r:.80}; expected a {expected}. Correct it")


def _values(value: Any, where: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise ConfigError(f"{where} values is {value!r:.80}; expected a table of texts. Correct it")
    return value


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ConfigError(f'{where} is {value!r:.80}; expected texts, such as ["", "NA", "-9999"]. Correct it')
    return tuple(value)


def _table(tree: dict[str, Any], key: str) -> dict[str, Any]:
    value = tree.get(key, {})
    if not isinstance(value, dict):
        raise ConfigError(f"{key} is {value!r:.80}; expected a table [{key}]. Correct it")
    return value


def _value(table: dict[str, Any], key: str, kind: type | tuple[type, ...], default: Any) -> Any:
    value = table.get(key, default)
    kinds = kind if isinstance(kind, tuple) else (kind,)
    # A bool is an int to Python, and never one here.
    if value is not default and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
        raise ConfigError(f"{key} is {value!r:.80}; expected a {kinds[0].__name__}. Correct it")
    return value


def _only(table: dict[str, Any], known: Iterable[str], kind: str) -> None:
    names = list(known)
    for key in table:
        if key not in names:
            raise unknown(kind, key, names)
