"""Which policy serves: the artifact's, with what the command line changes of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from lodestar.data.errors import ArtifactError, ConfigError
from lodestar.pipeline.online.router import cold_start_policy
from lodestar.pipeline.online.settings import OnlineSettings
from lodestar.pipeline.replay.policy_settings import declared, read_settings, split_settings

__all__ = ["ONLINE", "served_policy"]

ONLINE: Final = "lodestar-online"


def served_policy(manifest: Mapping[str, Any], text: str | None) -> tuple[str, OnlineSettings]:
    """Return the name and the settings of the policy that serves.

    Args:
        manifest: of the artifact; one without a policy has the defaults.
        text: ``NAME,key=value`` or ``key=value``: what replaces the settings of the artifact.

    Raises:
        ArtifactError: the artifact is for a policy, or has settings, that this version does not know.
        ConfigError: the text is.

    >>> served_policy({}, "exploration=0.05")[1].exploration
    0.05
    """
    shipped = manifest.get("policy") or {"name": ONLINE, "settings": {}}
    name, settings = shipped["name"], shipped.get("settings") or {}
    if name != ONLINE:
        raise ArtifactError(f"the artifact is for policy {name!r}; expected {ONLINE}. Ship it for that one")
    try:
        found = OnlineSettings.from_dict(dict(settings))
    except (TypeError, ConfigError) as error:
        raise ArtifactError(f"the artifact has settings that {ONLINE} does not know: {error}. Ship it again") from error
    if text is not None:
        found = dataclasses.replace(found, **_changes(text))
    cold_start_policy(found.cold_start)
    return ONLINE, found


def _changes(text: str) -> dict[str, Any]:
    name, settings = split_settings(text if "=" not in text.partition(",")[0] else f"{ONLINE},{text}")
    if name != ONLINE:
        raise ConfigError(f"--policy {text}: {name!r} is not what serves; expected {ONLINE} and its settings. Name it")
    changes = read_settings(ONLINE, settings, declared(OnlineSettings))
    for field in dataclasses.fields(OnlineSettings):
        most = field.metadata.get("most")
        if field.name in changes and most is not None and not 0 <= changes[field.name] <= most:
            raise ConfigError(f"--policy {text}: {field.name} is {changes[field.name]}; expected 0 to {most}")
    return changes
