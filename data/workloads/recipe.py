"""What a workload is made of: a small TOML file, read into typed values."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from lodestar.data.errors import ConfigError
from lodestar.data.workloads.agents import Agents
from lodestar.data.workloads.arrivals import PROCESSES, Limit, Process
from lodestar.data.workloads.draws import Draws
from lodestar.data.workloads.lengths import DISTRIBUTIONS, Lengths
from lodestar.data.workloads.sessions import Sessions
from lodestar.data.workloads.shared import Alone, Shared
from lodestar.data.workloads.streams import Drawn
from lodestar.data.workloads.tables import Table, known_keys, read_kind, read_table, require
from lodestar.data.workloads.trace import Trace

__all__ = [
    "Content",
    "Part",
    "Prefixes",
    "Recipe",
    "Traced",
    "read_recipe",
    "recipe_of",
    "with_rate",
    "with_settings",
]

KINDS: Final = {"arrivals": "process", "prompt_tokens": "distribution", "output_tokens": "distribution"}
PART_TABLES: Final = (*KINDS, "prefixes", "trace")
KEYS: Final = ("description", "requests", "duration_s", "block_tokens", *PART_TABLES, "phases")


class Prefixes(Protocol):
    """A prefix structure."""

    def draw(self, draws: Draws) -> Drawn:
        """Draw requests."""
        ...


#: What `structure` may name.
STRUCTURES: Final[Mapping[str, type[Prefixes]]] = {
    "none": Alone,
    "shared": Shared,
    "sessions": Sessions,
    "agents": Agents,
}


@dataclass(frozen=True, slots=True)
class Content:
    """Requests that are drawn: when they come, how long they are and which prefixes they share."""

    arrivals: Process
    prompt: Lengths
    output: Lengths
    prefixes: Prefixes


@dataclass(frozen=True, slots=True)
class Traced:
    """Requests of a trace, at its own times or at those of an arrival process."""

    arrivals: Process | None
    trace: Trace


@dataclass(frozen=True, slots=True)
class Part:
    """One phase: how much, and of what."""

    limit: Limit
    content: Content | Traced


@dataclass(frozen=True, slots=True)
class Recipe:
    """A workload to make: phases, one after the other."""

    description: str
    block_tokens: int
    parts: tuple[Part, ...]


def read_recipe(path: Path) -> dict[str, Any]:
    """Read a recipe's TOML, without judging it yet."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; expected a recipe in TOML. Check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML ({error}); expected a recipe. Mend the file") from error


def with_rate(table: Table, rate_per_s: float) -> dict[str, Any]:
    """Set the mean rate of the arrivals, where no phase names one of its own."""
    phases = table.get("phases")
    for i, phase in enumerate(phases if isinstance(phases, list) else []):
        arrivals = phase.get("arrivals") if isinstance(phase, dict) else None
        if isinstance(arrivals, dict) and "rate_per_s" in arrivals:
            raise ConfigError(
                f"rate_per_s is set by phase {i}; expected one rate for the whole recipe. "
                f"Set phases.{i}.arrivals.rate_per_s instead"
            )
    return with_settings(table, [f"arrivals.rate_per_s={rate_per_s!r}"])


def with_settings(table: Table, settings: Sequence[str]) -> dict[str, Any]:
    """Set keys by their path: ``prefixes.sharing_ratio=0.3``, ``phases.0.arrivals.rate_per_s=5``.

    The value is read as TOML, and as text where it is none. `requests` takes the place of `duration_s`, and the other
    way round.

    >>> with_settings({"requests": 5}, ["requests=7", "arrivals.process=poisson"])
    {'requests': 7, 'arrivals': {'process': 'poisson'}}
    """
    changed = dict(table)
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise ConfigError(f"--set {setting!r} is no setting; expected KEY=VALUE. Write it so")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        changed = _put(_without_other_limit(changed, path), path.split("."), value, path)
    return changed


def _without_other_limit(table: dict[str, Any], path: str) -> dict[str, Any]:
    """Take away the duration where a number of requests is set, and the other way round."""
    other = {"requests": "duration_s", "duration_s": "requests"}.get(path)
    return {key: value for key, value in table.items() if key != other}


def _put(node: Any, keys: list[str], value: object, path: str) -> Any:
    if not keys:
        return value
    if isinstance(node, list):
        if not (keys[0].isdecimal() and int(keys[0]) < len(node)):
            raise ConfigError(f"--set {path}: {keys[0]!r} is none of 0 to {len(node) - 1}. Choose one of these")
        return [_put(item, keys[1:], value, path) if i == int(keys[0]) else item for i, item in enumerate(node)]
    if not isinstance(node, Mapping):
        raise ConfigError(f"--set {path}: {keys[0]!r} lies in {node!r}, which is no table. Check the path")
    return {**node, keys[0]: _put(node.get(keys[0], {}), keys[1:], value, path)}


def recipe_of(table: Table) -> Recipe:
    """Read a table into a recipe; every mistake is an error that names its key."""
    known_keys(table, KEYS, "recipe")
    description = table.get("description", "")
    require("description", description, isinstance(description, str), "a text")
    block_tokens = table.get("block_tokens", 16)
    require("block_tokens", block_tokens, type(block_tokens) is int and 1 <= block_tokens <= 1 << 20, "1 or more")
    if "trace" in table and "block_tokens" in table:
        raise ConfigError("block_tokens is the trace's own; expected trace.tokens_per_block to change it. Remove it")
    limit = _limit(table)
    base = {name: table[name] for name in PART_TABLES if name in table}
    phases = table.get("phases")
    if phases is None:
        return Recipe(description, block_tokens, (_part(base, limit, ""),))
    shares = _shares(phases)
    parts = []
    for i, (phase, part_limit) in enumerate(zip(phases, _split(limit, shares), strict=True)):
        known_keys(phase, ("share_ratio", *PART_TABLES), f"phases.{i}")
        parts.append(_part(_over(base, phase), part_limit, f"phases.{i}."))
    return Recipe(description, block_tokens, tuple(parts))


def _limit(table: Table) -> Limit:
    requests, duration_s = table.get("requests"), table.get("duration_s")
    if requests is not None and duration_s is not None:
        raise ConfigError("recipe has both requests and duration_s; expected one of them. Remove one")
    if requests is None and duration_s is None and "trace" not in table:
        raise ConfigError("recipe has neither requests nor duration_s; expected one of them. Add one")
    require("requests", requests, requests is None or (type(requests) is int and requests >= 1), "1 or more")
    usable = duration_s is None or (type(duration_s) in (int, float) and 0 < duration_s < float("inf"))
    require("duration_s", duration_s, usable, "more than 0")
    return Limit(requests, duration_s if duration_s is None else float(duration_s))


def _shares(phases: object) -> list[float]:
    if not isinstance(phases, list) or not phases or not all(isinstance(phase, dict) for phase in phases):
        raise ConfigError(f"phases is {phases!r}; expected tables. Write each as [[phases]]")
    shares = [phase.get("share_ratio") for phase in phases]
    for i, share in enumerate(shares):
        require(f"phases.{i}.share_ratio", share, type(share) in (int, float) and 0 < share <= 1, "more than 0, to 1")
    require("share_ratio of all phases", sum(shares), abs(sum(shares) - 1) < 1e-9, "a sum of 1")
    return shares


def _split(limit: Limit, shares: list[float]) -> list[Limit]:
    """Give every phase its part; requests are cut so that all of them are given."""
    if limit.duration_s is not None:
        return [Limit(duration_s=limit.duration_s * share) for share in shares]
    if limit.requests is None:
        raise ConfigError("phases of a trace need requests or duration_s to share; the recipe has neither. Add one")
    until = [round(limit.requests * sum(shares[: i + 1])) for i in range(len(shares))]
    counts = [end - start for start, end in zip([0, *until[:-1]], until, strict=True)]
    require("requests", limit.requests, min(counts) >= 1, "enough for one or more in every phase")
    return [Limit(requests=count) for count in counts]


def _over(base: Table, phase: Table) -> dict[str, Any]:
    """Lay a phase over the recipe: its keys replace those of the same table, or the whole table if it names a kind."""
    merged = dict(base)
    for name in (name for name in PART_TABLES if name in phase):
        kind = KINDS.get(name, "structure" if name == "prefixes" else "source")
        both = isinstance(merged.get(name), dict) and isinstance(phase[name], dict)
        merged[name] = {**merged[name], **phase[name]} if both and kind not in phase[name] else phase[name]
    return merged


def _part(table: Table, limit: Limit, where: str) -> Part:
    made = ("prompt_tokens", "output_tokens", "prefixes")
    if "trace" in table:
        extra = [name for name in made if name in table]
        if extra:
            raise ConfigError(f"recipe has both {where}trace and {extra[0]}; expected one of them. Remove one")
        own = "arrivals" in table
        arrivals = read_kind(table["arrivals"], "process", PROCESSES, f"{where}arrivals") if own else None
        return Part(limit, Traced(arrivals, _trace(table["trace"], where)))
    lacking = [name for name in ("arrivals", *made[:2]) if name not in table]
    if lacking:
        raise ConfigError(f"recipe lacks table {where + lacking[0]!r}; expected arrivals, {', '.join(made)}. Add it")
    arrivals = read_kind(table["arrivals"], "process", PROCESSES, f"{where}arrivals")
    prompt, output = (read_kind(table[name], "distribution", DISTRIBUTIONS, f"{where}{name}") for name in made[:2])
    prefixes = read_kind(table.get("prefixes", {"structure": "none"}), "structure", STRUCTURES, f"{where}prefixes")
    return Part(limit, Content(arrivals, prompt, output, prefixes))


def _trace(table: object, where: str) -> Trace:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}trace is {table!r}; expected a table. Write it as [trace]")
    if "source" not in table:
        raise ConfigError(
            f"{where}trace lacks key 'source', the log file or dataset to take requests from. "
            "Add it, or say --set trace.source=FILE"
        )
    return read_table(table, Trace, f"{where}trace")
