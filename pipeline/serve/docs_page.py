"""The page of the routes: the OpenAPI document as one HTML file that loads nothing from anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

__all__ = ["docs_page"]

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: #2563a8; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1.5rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
details { border: 1px solid var(--line); border-radius: 6px; margin: .5rem 0; padding: .4rem .8rem; }
summary { cursor: pointer; } summary b { font: 600 13px ui-monospace, monospace; color: var(--accent); }
summary code { font-size: 14px; margin: 0 .6rem 0 .4rem; }
table { border-collapse: collapse; width: 100%; margin: .4rem 0 .8rem; }
td, th { text-align: left; vertical-align: top; padding: .25rem .6rem .25rem 0; border-top: 1px solid var(--soft); }
td:first-child { white-space: nowrap; } code, pre { font-family: ui-monospace, monospace; font-size: 13px; }
pre { background: var(--soft); padding: .6rem; overflow-x: auto; } .needed { color: #b3261e; }
"""

Schema = Mapping[str, Any]


def docs_page(document: Schema) -> str:
    """Render an OpenAPI document.

    >>> page = docs_page({"info": {"title": "T", "version": "1"}, "paths": {"/a": {"get": {"summary": "Ask <a>"}}}})
    >>> "<code>/a</code>Ask &lt;a&gt;" in page, "http" in page
    (True, False)
    """
    info = document["info"]
    body = "".join(_sections(document))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(info["title"])}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<h1>{escape(info['title'])}</h1><p>Version {escape(info['version'])}. {escape(info.get('description', ''))} "
        f'The same for machines: <a href="openapi.json">openapi.json</a>.</p>{body}</html>'
    )


def _sections(document: Schema) -> Iterator[str]:
    by_tag: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            tag = (route.get("tags") or ["other"])[0]
            by_tag.setdefault(tag, []).append(_route(document, path, method, route))
    for tag, routes in by_tag.items():
        yield f"<h2>{escape(tag)}</h2>{''.join(routes)}"


def _route(document: Schema, path: str, method: str, route: Schema) -> str:
    parts = [f"<p>{escape(route.get('description', ''))}</p>"]
    for each in route.get("parameters", ()):
        told = f"{each['in']}: {_type(document, each['schema'])}"
        parts.append(f"<p><code>?{escape(each['name'])}</code> {told}. {escape(each.get('description', ''))}</p>")
    for kind, content in route.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<h4>Body, {escape(kind)}</h4>{_shape(document, content.get('schema', {}))}")
        if "example" in content:
            parts.append(f"<pre>{escape(str(content['example']))}</pre>")
    for status, answer in route.get("responses", {}).items():
        parts.append(f"<h4>{escape(status)}: {escape(answer.get('description', ''))}</h4>")
        for content in answer.get("content", {}).values():
            parts.append(_shape(document, content.get("schema", {})))
    head = f"<b>{method.upper()}</b><code>{escape(path)}</code>{escape(route.get('summary', ''))}"
    return f"<details><summary>{head}</summary>{''.join(parts)}</details>"


def _resolved(document: Schema, schema: Schema) -> tuple[str, Schema]:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    return (name, document["components"]["schemas"][name]) if name else ("", schema)


def _shape(document: Schema, schema: Schema, depth: int = 0) -> str:
    """Show the fields of an object, and below it those of the objects in it."""
    _, schema = _resolved(document, schema)
    fields = schema.get("properties")
    if not fields:
        return "" if depth else f"<p><code>{_type(document, schema)}</code></p>"
    needed, rows, inner = schema.get("required", ()), [], []
    for name, field in fields.items():
        mark = ' <span class="needed">*</span>' if name in needed else ""
        told = f"{escape(field.get('description', ''))}{_bounds(field)}"
        rows.append(
            f"<tr><td><code>{escape(name)}</code>{mark}<td><code>{_type(document, field)}</code><td>{told}</tr>"
        )
        for item in _objects(document, field):
            inner.append(f"<p>Each of <code>{escape(name)}</code>:</p>{_shape(document, item, depth + 1)}")
    said = f"<p>{escape(schema.get('description', ''))}</p>" if schema.get("description") else ""
    return f"{said}<table>{''.join(rows)}</table>{''.join(inner)}"


def _objects(document: Schema, field: Schema) -> Iterator[Schema]:
    for each in (field, field.get("items", {}), *field.get("anyOf", ())):
        found = _resolved(document, each)[1]
        if "$ref" in each and "properties" in found:
            yield found


def _type(document: Schema, schema: Schema) -> str:
    name, found = _resolved(document, schema)
    if name:
        return escape(name)
    if "enum" in found:
        return escape(" | ".join(json.dumps(value, ensure_ascii=False) for value in found["enum"]))
    if "const" in found:
        return escape(json.dumps(found["const"]))
    if "anyOf" in found:
        return " | ".join(_type(document, each) for each in found["anyOf"])
    if found.get("type") == "array":
        return f"[{_type(document, found.get('items', {}))}, …]"
    return escape(str(found.get("type", "any")))


def _bounds(field: Schema) -> str:
    """Say in what range a number lies, or how long a text or list is."""
    spans = []
    for each in (field, *field.get("anyOf", ())):
        for low, high in (("minimum", "maximum"), ("minLength", "maxLength"), ("minItems", "maxItems")):
            if low in each or high in each:
                spans.append(f"{_short(each, low)}…{_short(each, high)}{'' if low == 'minimum' else ' long'}")
    return f" <small>({escape(', '.join(spans))})</small>" if spans else ""


def _short(field: Schema, bound: str) -> str:
    return f"{field[bound]:g}" if bound in field else ""
