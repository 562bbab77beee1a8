"""What the router knows of the instances, which is not the engines' truth: how old, how coarse, how forgetful."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from importlib.resources import files
from typing import Any

from lodestar.data.errors import ConfigError, unknown

__all__ = ["RouterView", "views"]


@dataclass(frozen=True, slots=True)
class RouterView:
    """How a router learns what it decides by. Its in-flight counters are always its own and up to date.

    Attributes:
        scrape_interval_ms: time between two readings of the engines' metrics (running, waiting, cache usage); a
            decision sees the last reading. 0 reads them at every decision.
        index_block_tokens: tokens of one block of the router's own prefix index, which counts whole blocks only.
        index_ttl_s: how long the index keeps a block after the router last sent it; 0 keeps it forever.
        index_capacity_blocks: blocks that the index holds, least recently sent dropped first; 0 is no limit.
        index_per_instance: whether that limit holds for each instance apart, instead of for all together.
        index_skips_uncached: whether it knows which engines cache no prefixes, and believes nothing to be there.
    """

    scrape_interval_ms: float = 0.0
    index_block_tokens: int = 1
    index_ttl_s: float = 0.0
    index_capacity_blocks: int = 0
    index_per_instance: bool = False
    index_skips_uncached: bool = False

    def __post_init__(self) -> None:
        """Refuse what no router does."""
        for field in fields(self):
            if getattr(self, field.name) < 0:
                raise ConfigError(f"view {field.name} is {getattr(self, field.name)}; expected zero or more")
        if self.index_block_tokens < 1:
            raise ConfigError("view index_block_tokens is 0; expected at least 1")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings by name."""
        return asdict(self)

    @classmethod
    def preset(cls, name: str) -> RouterView:
        """Return what a known router sees, by its name.

        >>> RouterView.preset("llm-d").scrape_interval_ms
        50.0
        """
        known = views()
        if name not in known:
            raise unknown("router view", name, known)
        return replace(cls(), **{key: value for key, value in known[name].items() if key != "source"})


@cache
def views() -> dict[str, dict[str, Any]]:
    """Return every preset's settings, with its source."""
    text = files("lodestar.pipeline.replay").joinpath("router_views.json").read_text(encoding="utf-8")
    loaded: dict[str, dict[str, Any]] = json.loads(text)
    return loaded
