"""A cluster from a TOML file, and from what the command line says beside it; every key is known, or an error."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields, make_dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any, get_type_hints

from lodestar.data.errors import ConfigError
from lodestar.data.workloads.tables import Table, known_keys, read_table
from lodestar.models.engine import EngineModel
from lodestar.pipeline.replay.cluster_spec import FITTED, ClusterSpec, InstanceSpec
from lodestar.pipeline.replay.events import ON_FAILURE, Event, parse_event
from lodestar.pipeline.replay.view import RouterView

__all__ = ["cluster_spec", "described_cluster", "read_cluster_file"]


def _optional(kind: type[Any]) -> list[tuple[str, Any, Any]]:
    """Return a dataclass's fields with None, for "not said", as their default."""
    hints = get_type_hints(kind)
    return [(entry.name, hints[entry.name] | None, None) for entry in fields(kind)]


_INSTANCE_TABLE = make_dataclass(
    "_InstanceTable",
    [("count", int, 1), ("engine", str, FITTED), ("slowed", float, 1.0), *_optional(EngineModel)],
)
_VIEW_TABLE = make_dataclass("_ViewTable", [("preset", str | None, None), *_optional(RouterView)])


def described_cluster(
    path: Path | None, view: str | None, events: Sequence[str] = (), on_failure: str | None = None
) -> ClusterSpec:
    """Read a file, if one is named, and let what the command line says come on top.

    A view's preset takes the place of the file's view; events come beside the file's.

    >>> described_cluster(None, "llm-d", ["fail:2@120"]).events
    (Event(at_s=120.0, kind='fail', instance=2, factor=1.0),)
    """
    spec = ClusterSpec(where="the command line") if path is None else read_cluster_file(path)
    return replace(
        spec,
        events=(*spec.events, *map(parse_event, events)),
        view=spec.view if view is None else RouterView.preset(view),
        on_failure=on_failure or spec.on_failure,
    )


def read_cluster_file(path: Path) -> ClusterSpec:
    """Read a cluster file.

    Raises:
        ConfigError: in one line, which key of which table is not usable.
    """
    try:
        table = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; expected a cluster file. Check --cluster") from error
    except ValueError as error:
        raise ConfigError(f"{path}: no TOML ({error}); expected a cluster file. Correct it") from error
    return cluster_spec(table, str(path))


def cluster_spec(table: Table, where: str = "cluster") -> ClusterSpec:
    """Check the tables of a cluster file, read; `where` names it in errors."""
    known_keys(table, ("instance", "event", "view", "on_failure"), where)
    on_failure = table.get("on_failure", ON_FAILURE[0])
    return ClusterSpec(
        instances=tuple(_instance(each, at) for at, each in _listed(table, "instance", where)),
        events=tuple(read_table(each, Event, at) for at, each in _listed(table, "event", where)),
        on_failure=on_failure if isinstance(on_failure, str) else repr(on_failure),
        view=_view(table["view"], f"{where}: [view]") if "view" in table else None,
        where=where,
    )


def _listed(table: Table, name: str, where: str) -> list[tuple[str, Table]]:
    """Return each table of a list, with what to call it in errors."""
    found = table.get(name, [])
    if not isinstance(found, list) or not all(isinstance(each, Mapping) for each in found):
        raise ConfigError(f"{where}: {name} is {found!r:.80}; expected tables. Write each as [[{name}]]")
    named = [(f"{where}: [[{name}]] #{number}", each) for number, each in enumerate(found, 1)]
    for at, each in named:
        _require_finite(each, at)
    return named


def _require_finite(table: Table, where: str) -> None:
    """Refuse inf and nan, which TOML can write and no cluster can be."""
    for name, value in table.items():
        if isinstance(value, float) and not isfinite(value):
            raise ConfigError(f"{where}.{name} is {value}; expected a finite number. Change it")


def _instance(table: Table, where: str) -> InstanceSpec:
    said: Any = read_table(table, _INSTANCE_TABLE, where)
    settings = tuple(
        (entry.name, value) for entry in fields(EngineModel) if (value := getattr(said, entry.name)) is not None
    )
    return InstanceSpec(said.count, said.engine, said.slowed, settings, where)


def _view(table: Table, where: str) -> RouterView:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where} is {table!r:.80}; expected a table. Write it as [view]")
    _require_finite(table, where)
    said: Any = read_table(table, _VIEW_TABLE, where)
    own = {name: value for entry in fields(RouterView) if (value := getattr(said, name := entry.name)) is not None}
    try:
        return replace(RouterView() if said.preset is None else RouterView.preset(said.preset), **own)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
