"""The recipes that ship with Lodestar, by name."""

from __future__ import annotations

from importlib import resources

from lodestar.data.errors import unknown

__all__ = ["preset_names", "preset_text"]


def preset_names() -> list[str]:
    """List the presets.

    >>> preset_names()[:3]
    ['agents', 'bursts', 'conversation']
    """
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def preset_text(name: str) -> str:
    """Return a preset's TOML."""
    if name not in preset_names():
        raise unknown("preset", name, preset_names())
    return (resources.files(__name__) / f"{name}.toml").read_text(encoding="utf-8")
