"""Policies of other packages, which declare them as entry points.

A package says in its ``pyproject.toml``::

    [project.entry-points."lodestar.policies"]
    mine = "my_package.routing:Mine"

and `lodestar replay --policy mine` finds the class, once the package is installed.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from lodestar.data.errors import ConfigError

__all__ = ["GROUP", "load_plugin", "plugin_rows", "plugins"]

GROUP: Final = "lodestar.policies"


def plugins() -> dict[str, list[EntryPoint]]:
    """Return what installed packages declare, by name."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        found.setdefault(entry.name, []).append(entry)
    return found


def plugin_rows(taken: Collection[str] = ()) -> list[dict[str, str]]:
    """Return them as rows of a listing; nothing is imported. What has a name that is `taken` is never used."""
    hidden = "; hidden by the policy of ours that has this name"
    return [
        {
            "policy": name,
            "rule": f"{entry.value} of {package_of(entry)}{hidden if name in taken else ''}",
            "settings": "",
            "needs": "",
        }
        for name, entries in plugins().items()
        for entry in entries
    ]


def load_plugin(name: str, entries: list[EntryPoint]) -> type[object]:
    """Import the class that stands behind a name.

    Raises:
        ConfigError: in one line: two packages have the name, or the class cannot be imported.
    """
    if len({entry.value for entry in entries}) > 1:
        said = ", ".join(f"{entry.value} of {package_of(entry)}" for entry in entries)
        raise ConfigError(f"policy {name!r} is {said}; expected one package with this name. Remove the other one")
    (entry, *_) = entries
    try:
        found = entry.load()
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"policy {name!r} of {package_of(entry)} is declared as {entry.value}: {said}; "
            "expected MODULE:CLASS that imports. Correct the package"
        ) from error
    if not isinstance(found, type):
        raise ConfigError(
            f"policy {name!r} of {package_of(entry)} is declared as {entry.value}, which is no class; "
            "expected MODULE:CLASS. Correct the package"
        )
    return found


def package_of(entry: EntryPoint) -> str:
    """Return the name of the package that declares it."""
    return entry.dist.name if entry.dist else "an unknown package"
