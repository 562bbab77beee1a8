"""TOML tables into frozen dataclasses: every key is known, of its type and usable, or the error says which is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from difflib import get_close_matches
from typing import Any, TypeVar, get_type_hints

from lodestar.data.errors import ConfigError

__all__ = ["Table", "known_keys", "read_kind", "read_table", "require"]

Table = Mapping[str, Any]
Kinds = Mapping[str, type[Any]]
T = TypeVar("T")
NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple[float, ...]: "a number or a list of numbers",
}


def require(name: str, value: object, is_usable: bool, expected: str) -> None:
    """Raise the error for a value that cannot be used.

    >>> require("rate_per_s", -1.0, False, "more than 0")
    Traceback (most recent call last):
    lodestar.data.errors.ConfigError: rate_per_s -1.0 is not usable; expected more than 0. Choose another value
    """
    if not is_usable:
        raise ConfigError(f"{name} {value!r} is not usable; expected {expected}. Choose another value")


def read_kind(table: Table, key: str, kinds: Kinds, where: str) -> Any:
    """Read a table into the dataclass that its `key` names."""
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where} is {table!r}; expected a table with key {key!r}. Write it as [{where}]")
    if key not in table:
        raise ConfigError(f"{where} lacks key {key!r}; expected one of {', '.join(kinds)}. Add it")
    if table[key] not in kinds:
        raise ConfigError(f"{where}.{key} {table[key]!r} is not known;{_closest(str(table[key]), list(kinds))}")
    return read_table({name: value for name, value in table.items() if name != key}, kinds[table[key]], where, (key,))


def read_table(table: Table, kind: type[T], where: str, also: tuple[str, ...] = ()) -> T:
    """Read a table into a dataclass: its fields are the keys; `also` names further keys for the error's list.

    A field with metadata `key` and `kinds` is a table of its own, whose `key` names one of `kinds`.
    """
    declared = {entry.name: entry for entry in fields(kind)}  # type: ignore[arg-type]
    known_keys(table, (*also, *declared), where)
    lacking = [name for name, entry in declared.items() if name not in table and entry.default is MISSING]
    if lacking:
        raise ConfigError(f"{where} lacks key {lacking[0]!r}; expected {', '.join(declared)}. Add it")
    hints = get_type_hints(kind)
    values = {name: _value(value, declared[name], hints[name], f"{where}.{name}") for name, value in table.items()}
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def known_keys(table: Table, known: tuple[str, ...], where: str) -> None:
    """Refuse a key that is not known, with the closest match."""
    for name in table:
        if name not in known:
            raise ConfigError(f"{where}: key {name!r} is not known;{_closest(name, list(known))}")


def _closest(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f" did you mean {close[0]!r}?" if close else ""
    return f"{hint} Known: {', '.join(known)}"


def _value(value: object, entry: Field[Any], hint: Any, where: str) -> Any:
    if "kinds" in entry.metadata:
        return read_kind(value, entry.metadata["key"], entry.metadata["kinds"], where)  # type: ignore[arg-type]
    choices = [kind for kind in getattr(hint, "__args__", ()) if kind is not type(None) and kind is not Ellipsis]
    wanted = choices[0] if type(None) in getattr(hint, "__args__", ()) else hint
    found = _as(value, wanted)
    if found is None:
        raise ConfigError(f"{where} is {value!r}; expected {NAMES.get(wanted, wanted)}. Change it")
    return found


def _as(value: object, wanted: Any) -> Any:
    """Return the value as the wanted type, or None where it is of another; true is no number."""
    if wanted is float and type(value) in (int, float):
        return float(value)  # type: ignore[arg-type]
    if wanted == tuple[float, ...]:
        listed = value if isinstance(value, list) else [value]
        return tuple(map(float, listed)) if listed and all(type(item) in (int, float) for item in listed) else None
    return value if type(value) is wanted else None
