"""From what a user writes to a policy: a name, FILE.py:CLASS, settings, wrappers, other packages' policies."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from numba.core.errors import NumbaError

from lodestar.data.errors import ConfigError, unknown
from lodestar.pipeline.replay.parallel import AnyPolicy
from lodestar.pipeline.replay.policies import POLICIES
from lodestar.pipeline.replay.policy_file import class_in_file, is_python_policy, python_policy
from lodestar.pipeline.replay.policy_plugins import load_plugin, plugins
from lodestar.pipeline.replay.policy_settings import Setting, declared, read_settings, split_settings
from lodestar.pipeline.replay.python_policy import PythonPolicy
from lodestar.pipeline.replay.routing.contract import MODEL, Models, Policy, check_settings
from lodestar.pipeline.replay.routing.learning import LearningPolicy
from lodestar.pipeline.replay.routing.wrapped import WRAPPERS, Wrapped

__all__ = ["find_policy", "known_policies", "make_policy", "wants_models"]


def known_policies() -> tuple[type[Policy] | type[LearningPolicy], ...]:
    """Return every policy of ours."""
    from lodestar.pipeline.online.policies import LEARNING  # they make policies by name themselves

    return (*POLICIES, *LEARNING)


def find_policy(text: str, models: Models | None = None) -> AnyPolicy:
    """Make the policy that a text names.

    Args:
        text: the name of a policy of ours or of an installed package, or FILE.py:CLASS; ``epsilon:`` or ``softmax:``
            before it; and ``,key=value`` for each setting behind it. A wrapper takes the setting that it has
            (``epsilon``, ``temperature``), the policy all others. A name of ours is never another package's.
        models: for policies that need some.

    Raises:
        ConfigError: in one line: the name or a setting is not known or not usable, or there is no model.

    >>> find_policy("epsilon:aibrix-prefix-cache,epsilon=0.2,deviations=2")
    ... # doctest: +NORMALIZE_WHITESPACE
    Wrapped(inner=AibrixPrefixCache(imbalance_requests=8.0, deviations=2.0), kind='epsilon', amount=0.2)
    """
    name, settings = split_settings(text)
    return _find(name, settings, models)


def make_policy(name: str, models: Models | None = None) -> Policy:
    """Make a compiled policy by its name, with settings and wrappers if the text has some.

    >>> make_policy("least-request").name
    'least-request'
    """
    found = find_policy(name, models)
    if not isinstance(found, Policy):
        raise ConfigError(f"policy {name} is in plain Python; expected a compiled one. See lodestar policies")
    return found


def wants_models(text: str) -> bool:
    """Say whether the policy that a text names predicts latencies by a model; a name that is not known wants none.

    >>> wants_models("epsilon:learned,epsilon=0.05"), wants_models("random")
    (True, False)
    """
    name, _ = split_settings(text)
    kind, _, rest = name.partition(":")
    name = rest if kind in WRAPPERS else name
    try:
        found = _class_of(name)[1]
    except ConfigError:  # said when the policy is made
        return False
    return getattr(found, "predictor", None) == MODEL


def _find(name: str, settings: dict[str, str], models: Models | None) -> AnyPolicy:
    kind, colon, rest = name.partition(":")
    if colon and kind in WRAPPERS:
        return _wrapped(kind, rest, settings, models)
    file, found = _class_of(name)
    if issubclass(found, LearningPolicy):
        return _learning(found, settings)
    if file is None:
        return _compiled(found, settings, models)
    return _made(f"{file.name}:{found.__name__}" if is_python_policy(name) else name, file, found, settings, models)


def _class_of(name: str) -> tuple[Path | None, Any]:
    """Find the class behind a name, and the file of one that is not ours."""
    if is_python_policy(name):
        return class_in_file(name)
    ours = {policy.name: policy for policy in known_policies()}
    if name in ours:
        return None, ours[name]
    others = plugins()
    if name not in others:
        raise unknown("policy", name, [*ours, *others, *(f"{kind}:NAME" for kind in WRAPPERS)])
    plugin = load_plugin(name, others[name])
    return Path(inspect.getsourcefile(plugin) or plugin.__module__), plugin


def _wrapped(kind: str, name: str, settings: dict[str, str], models: Models | None) -> Wrapped:
    wrapper = WRAPPERS[kind]
    own = {key: text for key, text in settings.items() if key == wrapper.setting}
    inner = _find(name, {key: text for key, text in settings.items() if key not in own}, models)
    if isinstance(inner, PythonPolicy):
        raise ConfigError(
            f"{kind}:{inner.name} wraps a policy in plain Python, which gives no costs; expected a compiled one. "
            "Let its choose return probabilities instead"
        )
    if isinstance(inner, LearningPolicy):
        raise ConfigError(f"{kind}:{inner.name} wraps a policy that learns; expected a compiled one. Set exploration")
    read = read_settings(f"{kind}:{name}", own, {wrapper.setting: Setting(wrapper.setting, "float")})
    return Wrapped(inner, kind, read.get(wrapper.setting, wrapper.default))


def _made(
    name: str, file: Path, found: type[object], settings: dict[str, str], models: Models | None
) -> Policy | PythonPolicy:
    """Make a policy of a class that is not ours."""
    if not issubclass(found, Policy):
        return python_policy(name, file, found, settings)
    lacking = [each for each in ("name", "rule") if not hasattr(found, each)]
    if lacking:
        raise ConfigError(f"policy {name}: {found.__name__} has no {' and no '.join(lacking)}; expected both. Add them")
    made = _compiled(found, settings, models)
    try:
        _ = made.rule.compiled, made.notice.compiled
    except NumbaError as error:
        said = next(line for line in str(error).splitlines() if line.strip())
        raise ConfigError(
            f"policy {name}: {file} does not compile ({said.strip()}); expected scalars, and loops over the arrays "
            "that it is given. Correct it"
        ) from error
    return made


def _learning(found: type[LearningPolicy], settings: dict[str, str]) -> LearningPolicy:
    values = read_settings(found.name, settings, declared(found))
    try:
        made = found(**values)
        check_settings(made)
        made.fresh()
    except ConfigError as error:
        raise ConfigError(f"policy {found.name}: {error}") from error
    return made


def _compiled(found: type[Policy], settings: dict[str, str], models: Models | None) -> Policy:
    values = read_settings(found.name, settings, declared(found))
    if found.predictor == MODEL:
        if models is None or not models.there:
            raise ConfigError(
                f"policy {found.name!r} needs a latency model and this dataset has none; expected trained models. "
                "Run lodestar train first"
            )
        values["models"] = models
    try:
        made = found(**values)
        check_settings(made)
    except ConfigError as error:
        raise ConfigError(f"policy {found.name}: {error}") from error
    return made
