"""The settings of a policy that can be tuned, and a policy with its settings in words, as `--policy` takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from lodestar.data.errors import ConfigError
from lodestar.pipeline.replay.parallel import AnyPolicy
from lodestar.pipeline.replay.policy_settings import split_settings
from lodestar.pipeline.replay.routing.contract import Policy, Space, is_setting, spaces
from lodestar.pipeline.replay.routing.wrapped import WRAPPERS, Wrapped

__all__ = ["check_tunable", "named_settings", "policy_text", "spaces_of", "with_settings"]


def spaces_of(policy: AnyPolicy) -> dict[str, Space]:
    """Return the settings that can be tuned; of a wrapped policy those of the policy inside.

    How much a wrapper explores is the user's decision: less is nearly always faster, and worth less as a log.
    """
    if not isinstance(policy, Policy):
        return {}
    return {name: space for name, space in spaces(type(_inside(policy))).items() if name != _taken(policy)}


def named_settings(policy: Policy) -> dict[str, Any]:
    """Return what these settings are now."""
    return {name: getattr(_inside(policy), name) for name in spaces_of(policy)}


def with_settings(policy: Policy, settings: Mapping[str, Any]) -> Policy:
    """Return the policy with other settings."""
    changed: Policy = replace(_inside(policy), **settings)  # type: ignore[type-var]
    return replace(policy, inner=changed) if isinstance(policy, Wrapped) else changed


def check_tunable(policies: Mapping[str, AnyPolicy]) -> None:
    """Refuse to tune where there is nothing to tune."""
    if not any(map(spaces_of, policies.values())):
        raise ConfigError(
            f"--tune: nothing to tune in {', '.join(policies)}; expected a policy that has settings. "
            "Add one, such as --policy aibrix-prefix-cache, or see lodestar policies"
        )


def policy_text(name: str, policy: AnyPolicy) -> str:
    """Write a policy with all settings that are not its defaults; one in plain Python as it was named.

    >>> from lodestar.pipeline.replay.policies.aibrix_prefix_cache import AibrixPrefixCache
    >>> policy_text("aibrix-prefix-cache", AibrixPrefixCache(imbalance_requests=4.0))
    'aibrix-prefix-cache,imbalance_requests=4'
    """
    if not isinstance(policy, Policy):
        return name
    inside = _inside(policy)
    settings = {
        each.name: value
        for each in fields(inside)  # type: ignore[arg-type]
        if is_setting(each) and each.name != _taken(policy) and (value := getattr(inside, each.name)) != each.default
    }
    if isinstance(policy, Wrapped) and policy.amount != WRAPPERS[policy.kind].default:
        settings[WRAPPERS[policy.kind].setting] = policy.amount
    words = [f"{key}={_written(value)}" for key, value in settings.items()]
    return ",".join([split_settings(name)[0], *words])


def _taken(policy: Policy) -> str | None:
    """Return the setting of the wrapper, which hides one of the policy inside that has the same name."""
    return WRAPPERS[policy.kind].setting if isinstance(policy, Wrapped) else None


def _inside(policy: Policy) -> Policy:
    return policy.inner if isinstance(policy, Wrapped) else policy


def _written(value: object) -> str:
    """Write a value so that it is read back as it is.

    >>> _written(4.0), _written(0.1234567), _written(True), _written("max")
    ('4', '0.1234567', 'true', 'max')
    """
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
