"""Settings of a policy as a user writes them: ``NAME,key=value,key=value``, read as the types that they have."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from lodestar.data.errors import ConfigError, unknown
from lodestar.pipeline.replay.routing.contract import is_setting

__all__ = ["Setting", "declared", "read_settings", "split_settings"]

#: What a setting can be, by the name of its type, and what a user is told of it.
_KINDS: Final = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "text"}
_ANYTHING: Final = "anything"


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting that a policy has.

    Attributes:
        name: the key.
        kind: a key of `_KINDS`, 'anything' where the policy does not say, or another type's name.
        whole: whether only whole numbers are values, though its type is another.
        optional: whether ``none`` is a value.
        required: whether there is no default.
    """

    name: str
    kind: str
    whole: bool = False
    optional: bool = False
    required: bool = False

    @property
    def usable(self) -> bool:
        """Say whether text can set it."""
        return self.kind in _KINDS or self.kind == _ANYTHING


def split_settings(text: str) -> tuple[str, dict[str, str]]:
    """Take settings off a name; a comma in the path of a Python file stays.

    >>> split_settings("aibrix-prefix-cache,deviations=2,imbalance_requests=16")
    ('aibrix-prefix-cache', {'deviations': '2', 'imbalance_requests': '16'})
    >>> split_settings("a,b/mine.py:Mine,weight=2")
    ('a,b/mine.py:Mine', {'weight': '2'})
    """
    path, colon, rest = text.partition(".py:")
    if not colon:
        path, rest = "", text
    name, *pairs = rest.split(",")
    settings: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not key or not equals or not value:
            raise ConfigError(f"--policy {text}: {pair!r} is no setting; expected NAME,key=value,key=value")
        if key in settings:
            raise ConfigError(f"--policy {text}: {key} is set twice; expected each setting once. Leave one out")
        settings[key] = value
    return f"{path}{colon}{name}", settings


def declared(policy: type[object]) -> dict[str, Setting] | None:
    """Return the settings of a class by name: its fields, or what it is made with; None: it takes any."""
    if dataclasses.is_dataclass(policy):
        found = [_of_field(each) for each in dataclasses.fields(policy) if each.init and is_setting(each)]
        return {setting.name: setting for setting in found}
    settings = {}
    for parameter in inspect.signature(policy).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            return None
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            settings[parameter.name] = _of_parameter(parameter)
    return settings


def read_settings(name: str, settings: Mapping[str, str], known: Mapping[str, Setting] | None) -> dict[str, Any]:
    """Turn text into values.

    Args:
        name: of the policy, for errors.
        settings: as written.
        known: what the policy has; None: anything.

    Raises:
        ConfigError: in one line: unknown, not usable, not of its type, or missing.
    """
    if known is None:
        return {key: _guessed(text) for key, text in settings.items()}
    usable = [key for key, setting in known.items() if setting.usable]
    values = {}
    for key, text in settings.items():
        if key not in usable:
            raise unknown(f"policy {name}: setting", key, usable)
        values[key] = _read(name, known[key], text)
    missing = [key for key, setting in known.items() if setting.required and key not in values]
    if missing:
        raise ConfigError(f"policy {name} needs {', '.join(missing)}; expected {name},{missing[0]}=VALUE. Add it")
    return values


def _of_field(field: dataclasses.Field[Any]) -> Setting:
    space = field.metadata.get("space")
    required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    kind, optional = _kind_of(field.type)
    return Setting(field.name, kind, bool(space and space.whole), optional, required)


def _of_parameter(parameter: inspect.Parameter) -> Setting:
    required = parameter.default is parameter.empty
    if parameter.annotation is not parameter.empty:
        kind, optional = _kind_of(parameter.annotation)
    else:
        default = type(parameter.default).__name__
        kind, optional = (default if default in _KINDS else _ANYTHING), False
    return Setting(parameter.name, kind, False, optional, required)


def _kind_of(annotation: object) -> tuple[str, bool]:
    """Return a type's name, and whether it may be None."""
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    words = [word.strip() for word in text.split("|")]
    rest = [word for word in words if word != "None"]
    return " | ".join(rest), len(rest) < len(words)


def _read(name: str, setting: Setting, text: str) -> Any:
    if setting.optional and text.lower() == "none":
        return None
    if setting.kind == _ANYTHING:
        return _guessed(text)
    wanted = "a whole number" if setting.whole else _KINDS[setting.kind]
    try:
        return _typed(setting, text)
    except ValueError:
        pass
    wanted += " or none" if setting.optional else ""
    raise ConfigError(f"policy {name}: {setting.name} is {text!r}; expected {wanted}. Correct it")


def _typed(setting: Setting, text: str) -> bool | int | float | str:
    if setting.kind == "str":
        return text
    if setting.kind == "bool":
        return {"true": True, "false": False}[text.lower()] if text.lower() in ("true", "false") else _refuse(text)
    number = float(text)
    if math.isnan(number):
        _refuse(text)
    if setting.kind == "float" and not setting.whole:
        return number
    if not number.is_integer():  # so are infinities
        _refuse(text)
    whole = int(text) if text.lstrip("+-").isdecimal() else int(number)
    return float(whole) if setting.kind == "float" else whole


def _refuse(text: str) -> Any:
    raise ValueError(text)


def _guessed(text: str) -> bool | int | float | str:
    """Read what looks like a number or a truth value as one.

    >>> [_guessed(text) for text in ("3", "0.5", "true", "low")]
    [3, 0.5, True, 'low']
    """
    for kind in ("bool", "int", "float"):
        try:
            return _typed(Setting("", kind), text)
        except ValueError:
            continue
    return text
