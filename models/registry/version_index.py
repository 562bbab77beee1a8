"""Which versions of a dataset's models there are, and which of them was the champion from when to when.

Plain data and plain functions: `lodestar.models.registry.current` keeps it in a file. A *reign* is a time during which
the champions of all targets stayed the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from lodestar.data.errors import ConfigError, unknown

__all__ = ["KEPT", "Index", "Reign", "added", "challengers", "crowned", "kept", "resolved", "rolled_back", "times"]

KEPT: Final = 20  # newest versions that stay, with or without an alias
_REIGNS: Final = 500  # newest reigns that stay on record


@dataclass(frozen=True, slots=True)
class Reign:
    """A time during which the champions stayed the same.

    Attributes:
        number: reigns before it.
        since: when it began (ISO 8601, UTC); it ended when the next one began.
        champions: target → version.
        why: 'promoted by the gate', 'promoted by hand' or 'rolled back'.
        back_to: number of the reign that a rollback restores; None where there is none.
    """

    number: int
    since: str
    champions: dict[str, str]
    why: str
    back_to: int | None


@dataclass(frozen=True, slots=True)
class Index:
    """All that is known of a dataset's models.

    Attributes:
        versions: oldest first; each a dict with 'version', 'created_at', 'data_fingerprint' and 'targets', which maps
            a target to what is known of its model: 'trees', 'requests_seen' and what training told of it ('mode',
            'reason', 'verdict', 'run_id', 'registered_model', 'registered_version').
        reigns: oldest first; the last one lasts.
    """

    versions: list[dict[str, Any]] = field(default_factory=list)
    reigns: list[Reign] = field(default_factory=list)

    @property
    def champions(self) -> dict[str, str]:
        """Target → version that is in use now."""
        return dict(self.reigns[-1].champions) if self.reigns else {}

    def find(self, version: str) -> dict[str, Any] | None:
        """Return what is known of a version; None where it is not kept."""
        return next((entry for entry in self.versions if entry["version"] == version), None)

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {"format": 1, "versions": self.versions, "reigns": [asdict(reign) for reign in self.reigns]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Index:
        """Read what `to_dict` returned."""
        return cls(values["versions"], [Reign(**reign) for reign in values["reigns"]])


def added(index: Index, entry: dict[str, Any], promoted: Collection[str] = ()) -> Index:
    """Add a version as the newest one; what is known of one that was there before stays, but for what is promoted now.

    >>> index = added(added(Index(), {"version": "a", "targets": {}}), {"version": "b", "targets": {}})
    >>> [entry["version"] for entry in added(index, {"version": "a", "targets": {}}).versions]
    ['b', 'a']
    """
    others = [each for each in index.versions if each["version"] != entry["version"]]
    known = index.find(entry["version"])
    if known is not None:
        renewed = {target: entry["targets"][target] for target in promoted}
        entry = known | {"targets": known["targets"] | renewed}
    return replace(index, versions=[*others, entry])


def crowned(index: Index, champions: Mapping[str, str], why: str, now: str) -> Index:
    """Begin a reign in which these are the champions; those of other targets stay. Nothing begins if all are already.

    >>> index = crowned(Index(), {"ttft_ms": "a"}, "promoted by the gate", "2026-01-01")
    >>> index = crowned(index, {"tpot_ms": "b"}, "promoted by hand", "2026-01-02")
    >>> index.champions, index.reigns[-1].back_to
    ({'ttft_ms': 'a', 'tpot_ms': 'b'}, 0)
    """
    after = index.champions | dict(champions)
    if after == index.champions:
        return index
    return _begun(index, after, why, now, index.reigns[-1].number if index.reigns else None)


def rolled_back(index: Index, to: str | None, now: str) -> Index:
    """Begin a reign like the one before, or like the last one in which version `to` was a champion.

    Rolling back twice restores the reign before that one: a rollback is not itself rolled back to.

    Raises:
        ConfigError: there is no such reign, or a version of it is kept no more.

    >>> index = crowned(Index(), {"ttft_ms": "a"}, "", "1")
    >>> index = crowned(crowned(index, {"ttft_ms": "b"}, "", "2"), {"ttft_ms": "c"}, "", "3")
    >>> index = replace(index, versions=[{"version": version} for version in "abc"])
    >>> once = rolled_back(index, None, "4")
    >>> once.champions, rolled_back(once, None, "5").champions
    ({'ttft_ms': 'b'}, {'ttft_ms': 'a'})
    """
    reign = _before(index) if to is None else _last_of(index, to)
    gone = sorted(version for version in reign.champions.values() if index.find(version) is None)
    if gone:
        raise ConfigError(
            f"version {gone[0]} of {reign.since} is kept no more; expected one of the newest {KEPT}. "
            "See lodestar models, and promote one of them"
        )
    return _begun(index, reign.champions, "rolled back", now, reign.back_to)


def challengers(index: Index) -> dict[str, str]:
    """Return target → version that was fitted last, whatever its verdict."""
    return {target: entry["version"] for entry in index.versions for target in entry["targets"]}


def kept(index: Index) -> Index:
    """Leave out the versions that are neither new, nor in use, nor what a rollback restores."""
    wanted = {entry["version"] for entry in index.versions[-KEPT:]}
    wanted |= set(index.champions.values()) | set(challengers(index).values())
    wanted |= set(_rollback(index).values())
    versions = [entry for entry in index.versions if entry["version"] in wanted]
    return Index(versions, index.reigns[-_REIGNS:])


def resolved(index: Index, version: str) -> dict[str, Any]:
    """Return the version of this name, or the only one whose name begins so.

    Raises:
        ConfigError: there is none, or more than one.
    """
    found = [entry for entry in index.versions if version and entry["version"].startswith(version)]
    if len(found) > 1:
        names = ", ".join(entry["version"] for entry in found)
        raise ConfigError(f"version {version!r} may be any of {names}; expected the name of one. Give more of it")
    if not found:
        raise unknown("version", version, [entry["version"] for entry in index.versions])
    return found[0]


def times(index: Index, version: str, target: str) -> list[dict[str, str | None]]:
    """Return 'from' when 'to' when a version was the champion of a target, and 'why'; None where it is still.

    >>> index = crowned(crowned(Index(), {"ttft_ms": "a"}, "by hand", "1"), {"tpot_ms": "b"}, "", "2")
    >>> times(crowned(index, {"ttft_ms": "c"}, "", "3"), "a", "ttft_ms")
    [{'from': '1', 'to': '3', 'why': 'by hand'}]
    """
    spans: list[dict[str, str | None]] = []
    before = None
    for reign in index.reigns:
        now = reign.champions.get(target)
        if before == version != now:
            spans[-1]["to"] = reign.since
        elif now == version != before:
            spans.append({"from": reign.since, "to": None, "why": reign.why})
        before = now
    return spans


def _begun(index: Index, champions: Mapping[str, str], why: str, now: str, back_to: int | None) -> Index:
    number = index.reigns[-1].number + 1 if index.reigns else 0
    return replace(index, reigns=[*index.reigns, Reign(number, now, dict(champions), why, back_to)])


def _rollback(index: Index) -> dict[str, str]:
    """Return the champions that a rollback restores; none where there is nothing to roll back to."""
    back_to = index.reigns[-1].back_to if index.reigns else None
    return next((dict(reign.champions) for reign in index.reigns if reign.number == back_to), {})


def _before(index: Index) -> Reign:
    if not index.reigns:
        raise ConfigError("there is no champion; expected one to roll back from. See lodestar models")
    found = [reign for reign in index.reigns if reign.number == index.reigns[-1].back_to]
    if not found:
        raise ConfigError("there was no champion before this one; expected one to roll back to. See lodestar models")
    return found[0]


def _last_of(index: Index, version: str) -> Reign:
    name = resolved(index, version)["version"]
    if name in index.champions.values():
        raise ConfigError(f"version {name} is a champion now; expected an earlier one. See lodestar models")
    found = [reign for reign in index.reigns if name in reign.champions.values()]
    if not found:
        raise ConfigError(
            f"version {name} never was a champion; expected one that was. Promote it: lodestar models promote"
        )
    return found[-1]
