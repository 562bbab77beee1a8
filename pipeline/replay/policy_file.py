"""Policies that users write in a file of their own: found by FILE.py:CLASS, checked before anything runs long."""

from __future__ import annotations

import hashlib
import inspect
import sys
from pathlib import Path
from types import ModuleType

from lodestar.data.errors import ConfigError, unknown
from lodestar.pipeline.replay.policy_settings import declared, read_settings, split_settings
from lodestar.pipeline.replay.python_policy import SIGNATURE, Chooser, PythonPolicy, place_of
from lodestar.pipeline.replay.routing.contract import Policy

__all__ = ["class_in_file", "is_python_policy", "load_python_policy", "python_policy"]


def is_python_policy(name: str) -> bool:
    """Tell a file and a class from the name of a policy.

    >>> is_python_policy("mine/router.py:Mine"), is_python_policy("least-request")
    (True, False)
    """
    return ".py:" in name or name.endswith(".py")


def load_python_policy(text: str) -> PythonPolicy:
    """Run the file and find the class with `choose` in it.

    Raises:
        ConfigError: in one line, what is missing or fails, and where.
    """
    name, settings = split_settings(text)
    file, found = class_in_file(name)
    return python_policy(f"{file.name}:{found.__name__}", file, found, settings)


def class_in_file(name: str) -> tuple[Path, type[object]]:
    """Run a file, and return it with the class that FILE.py:CLASS names."""
    path, _, wanted = name.rpartition(":")
    if not path or not wanted:
        raise ConfigError(f"--policy {name} names no class; expected FILE.py:CLASS. Add the class")
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"--policy {name}: there is no file {file}; expected FILE.py:CLASS. Check the path")
    module = _run(file)
    found = getattr(module, wanted, None)
    if found is None:
        raise unknown(f"{file}: class", wanted, [each for each, value in vars(module).items() if _is_policy(value)])
    if not inspect.isclass(found):
        raise ConfigError(f"--policy {name}: {wanted} is no class; expected one with {SIGNATURE}. Name another one")
    return file, found


def python_policy(name: str, file: Path, chooser: type[object], settings: dict[str, str]) -> PythonPolicy:
    """Put a user's class to work, once its method is checked and its settings are read."""
    if not callable(getattr(chooser, "choose", None)):
        raise ConfigError(f"--policy {name}: {chooser.__name__} has no method choose; expected {SIGNATURE}. Write it")
    chosen: type[Chooser] = chooser  # type: ignore[assignment]
    _check_arity(chosen, name)
    return PythonPolicy(name, file, chosen, read_settings(name, settings, declared(chooser)))


def _run(file: Path) -> ModuleType:
    """Run a file as a module of its own, whatever else has its name."""
    known_as = f"lodestar_policy_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:16]}"
    module = ModuleType(known_as)
    module.__file__ = str(file)
    sys.modules[known_as] = module  # dataclasses look their module up there
    try:
        exec(compile(file.read_bytes(), str(file), "exec", dont_inherit=True), vars(module))
    except Exception as error:
        said = f"{type(error).__name__}: {getattr(error, 'msg', error)}"
        raise ConfigError(f"{place_of(error, file)}: {said}; expected Python that runs. Correct the file") from error
    return module


def _is_policy(value: object) -> bool:
    return inspect.isclass(value) and value is not Policy and callable(getattr(value, "choose", None))


def _check_arity(chooser: type[Chooser], name: str) -> None:
    signature = inspect.signature(chooser.choose)
    bound: list[None] = [None] * 5
    if isinstance(inspect.getattr_static(chooser, "choose"), staticmethod | classmethod):
        bound = bound[1:]
    try:
        signature.bind(*bound)
    except TypeError as error:
        raise ConfigError(
            f"--policy {name}: its method is choose{signature}, {error}; expected {SIGNATURE}. Change it"
        ) from error
