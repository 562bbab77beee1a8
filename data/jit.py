"""A typed door to Numba: compiled on first use, then read from a cache on disk."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import numba

__all__ = ["LateFunction", "is_first_use", "jit", "jit_as", "jit_inner", "jit_late", "jit_part"]

F = TypeVar("F", bound=Callable[..., object])

_STAGES: Final = ("data", "features", "models", "reports", "pipeline")
#: What stands in a folder of this name calls no compiled function outside its own file but shared ones, and none calls
#: it but by its address: a change there leaves all other machine code as it is.
_APART: Final = "policies"
#: Files without compiled functions whose numbers are frozen into them: places of fields, kinds of events.
_NUMBERED: Final = ("schema.py", "events.py")
_PART: Final = {
    "error_model": "numpy",
    "nogil": True,
    "_nrt": False,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}


def _cache_folder() -> Path:
    """Name a folder for machine code by what it is compiled from.

    Numba looks only at the file a function stands in, and would go on using a function that calls a changed one.
    """
    stamp = hashlib.sha256()
    house = Path(__file__).resolve().parents[1]
    for source in sorted(path for stage in _STAGES for path in (house / stage).rglob("*.py")):
        if source.parent.name == _APART:
            continue
        text = source.read_bytes()
        if b"lodestar.data.jit import" in text or source.name in _NUMBERED:
            stamp.update(text)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "lodestar" / f"compiled-{stamp.hexdigest()[:16]}"


if not os.environ.get("NUMBA_CACHE_DIR"):
    numba.config.CACHE_DIR = str(_cache_folder())


_BASE: Final = Path(numba.config.CACHE_DIR)
_LOCK: Final = threading.Lock()


def is_first_use() -> bool:
    """Say whether nothing has been compiled on this machine yet, so that a command can say why it takes longer."""
    return not _BASE.is_dir()


def jit(function: F) -> F:
    """Compile a function of arrays and numbers on its first call and keep the machine code on disk."""
    compiled: F = numba.njit(cache=True, error_model="numpy", nogil=True)(function)
    return compiled


def jit_inner(function: F) -> F:
    """Compile a function into each compiled function that calls it: for short ones on the hot path.

    Like `jit_part`, it has no door from Python, counts no references and allocates nothing. What it belongs to is kept
    on disk as a whole by the function that Python calls.
    """
    compiled: F = numba.njit(**_PART, forceinline=True)(function)
    return compiled


def jit_part(function: F) -> F:
    """Compile a function that compiled code calls: for long or rare ones, which would only swell their callers."""
    compiled: F = numba.njit(**_PART)(function)
    return compiled


def jit_as(signature: Any, *, allocates: bool = True) -> Callable[[F], F]:
    """Compile for one signature only, so that the function can be handed to compiled code as a value.

    One that does not allocate need not count references, which costs more than most rules do.
    """

    def decorate(function: F) -> F:
        compiled: F = numba.njit(signature, cache=True, error_model="numpy", nogil=True, _nrt=allocates)(function)
        return compiled

    return decorate


class LateFunction:
    """A function that is compiled, or read from disk, when it is first asked for.

    Attributes:
        python: what it is compiled from.
    """

    def __init__(self, signature: Any, python: Callable[..., None]) -> None:
        self._signature, self.python = signature, python
        self._compiled: Any = None

    @property
    def compiled(self) -> Any:
        """Return the machine code, to call or to hand to compiled code."""
        if self._compiled is None:
            with _LOCK:
                if self._compiled is None:
                    self._compiled = self._compile()
        return self._compiled

    def _compile(self) -> Any:
        source = Path(self.python.__code__.co_filename)
        folder = _BASE
        if source.parent.name == _APART:
            folder = _BASE / f"policy-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = str(folder)
        try:
            return numba.njit(self._signature, cache=True, error_model="numpy", nogil=True, _nrt=False)(self.python)
        finally:
            numba.config.CACHE_DIR = before


def jit_late(signature: Any, function: Callable[..., None]) -> LateFunction:
    """Compile for one signature only, on first use, so that what nobody uses costs nothing; it allocates nothing."""
    return LateFunction(signature, function)
