"""JSON Lines to columns of text by a mapping file: values by their dotted paths."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import polars as pl

from lodestar.data import schema as s
from lodestar.data.mapping.recipe import Recipe
from lodestar.data.mapping.text import TextPart, instances_in, no_candidates
from lodestar.data.parsing.json_lines import Refused
from lodestar.data.parsing.records import entries, require_characters
from lodestar.data.reading import LINE, rejects_of
from lodestar.data.reasons import Reason
from lodestar.data.sources.source import Source

__all__ = ["as_text", "dotted", "flattened", "json_text"]

DEEPEST: Final = 50

Texts = dict[str, str | None]


def json_text(source: Source, recipe: Recipe) -> Iterator[TextPart]:
    """Read a source of JSON objects, one a line."""
    for found, bad in entries(source):
        rows, candidates, rejects = [], [], [bad]
        raws = {entry.number: entry.raw for entry in found}
        for entry in found:
            try:
                texts = {name: as_text(dotted(entry.value, column.column)) for name, column in recipe.fields.items()}
                listed = _listed(entry.value, recipe)
            except Refused as error:
                rejects.append(rejects_of([entry.number], error.reason, [error.detail], [entry.raw]))
                continue
            rows.append({LINE: entry.number, **texts})
            candidates += [{LINE: entry.number, **each} for each in listed]
        yield TextPart(
            pl.DataFrame(rows, schema={LINE: pl.Int64} | dict.fromkeys(recipe.fields, pl.String)),
            pl.DataFrame(candidates, schema=no_candidates(recipe).schema),
            pl.concat(rejects),
            len(rows) + sum(map(len, rejects)),
            lambda lines, known=raws: [known.get(line) for line in lines],  # type: ignore[misc]
        )


def _listed(value: dict[str, Any], recipe: Recipe) -> list[Texts]:
    fields = recipe.candidate_fields
    if not fields:
        return []
    if recipe.candidate_list is None:
        flat = flattened(value)
        wide = {field: instances_in(list(flat), column.column) for field, column in fields.items()}
        instances = dict.fromkeys(instance for of in wide.values() for instance in of)
        return [_wide_texts(flat, each, wide) for each in instances]
    listed = dotted(value, recipe.candidate_list)
    if listed is None:
        return []
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise Refused(Reason.WRONG_TYPE, f"{recipe.candidate_list}: expected a list of objects")
    return [
        {s.INSTANCE: as_text(dotted(each, recipe.candidate_name))}
        | {field: as_text(dotted(each, column.column)) for field, column in fields.items()}
        for each in listed
    ]


def _wide_texts(flat: dict[str, Any], instance: str, wide: dict[str, dict[str, str]]) -> Texts:
    texts: Texts = {field: as_text(flat.get(of.get(instance, ""))) for field, of in wide.items()}
    return {s.INSTANCE: as_text(instance)} | texts


def dotted(value: Any, path: str) -> Any:
    """Return what stands at a dotted path, None where nothing does; a key may have dots itself.

    >>> dotted({"a": {"b": [1, 2]}, "c.d": 3}, "a.b.1"), dotted({"c.d": 3}, "c.d"), dotted({}, "a.b")
    (2, 3, None)

    Raises:
        Refused: the path leads through a value that has no parts.
    """
    keys = path.split(".")
    for place, key in enumerate(keys):
        rest = ".".join(keys[place:])
        if isinstance(value, dict):
            if rest in value:
                return value[rest]
            value = value.get(key)
        elif isinstance(value, list) and key.isascii() and key.isdigit() and len(key) < 10:
            value = value[int(key)] if int(key) < len(value) else None
        elif value is not None:
            raise Refused(Reason.WRONG_TYPE, f"{path}: {'.'.join(keys[:place])} is no object")
    return value


def flattened(value: dict[str, Any], before: str = "", depth: int = 0) -> dict[str, Any]:
    """Return dotted path → value, for all that is no object.

    >>> flattened({"a": {"b": 1}, "c": [2]})
    {'a.b': 1, 'c': [2]}
    """
    flat: dict[str, Any] = {}
    for key, each in value.items():
        inner = isinstance(each, dict) and depth < DEEPEST
        flat |= flattened(each, f"{before}{key}.", depth + 1) if inner else {f"{before}{key}": each}
    return flat


def as_text(value: Any) -> str | None:
    """Write a value as text, None for null.

    >>> as_text(1.5), as_text(True), as_text([1, 2]), as_text(None)
    ('1.5', 'true', '[1, 2]', None)
    """
    if isinstance(value, str):
        require_characters("text", value)
        return value
    if value is None:
        return None
    try:
        return json.dumps(value)
    except (ValueError, RecursionError):
        raise Refused(Reason.WRONG_TYPE, "a value is nested too deep") from None
