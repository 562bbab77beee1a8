"""The errors a user can cause: one line each, exit code 2."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["ArtifactError", "ConfigError", "DataError", "LodestarError", "unknown"]


class LodestarError(Exception):
    """What was wrong, the value, what was expected and the next step, in one line."""


class DataError(LodestarError):
    """The data is not what the command needs; change the data or choose another dataset."""


class ConfigError(LodestarError):
    """An option or setting is not usable; change it."""


class ArtifactError(LodestarError):
    """An artifact is damaged or does not fit; ship it again."""


def unknown(kind: str, name: str, known: Iterable[str]) -> ConfigError:
    """Make the error for a name that is not known, with the closest match.

    >>> str(unknown("policy", "ramdom", ["least-request", "random"]))
    "policy 'ramdom' is not known; did you mean 'random'? Known: least-request, random"
    """
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    hint = f" did you mean {close[0]!r}?" if close else ""
    return ConfigError(f"{kind} {name!r} is not known;{hint} Known: {', '.join(names) or 'none'}")
