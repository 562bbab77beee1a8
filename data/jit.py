"""A typed door to Numba: compiled on first use, then read from a cache on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba

__all__ = ["is_first_use", "jit", "jit_as", "jit_inner"]

F = TypeVar("F", bound=Callable[..., object])


def _cache_folder() -> Path:
    """Name a folder for machine code by what it is compiled from.

    Numba looks only at the file a function stands in, and would go on using a function that calls a changed one.
    """
    stamp = hashlib.sha256()
    for source in sorted(Path(__file__).resolve().parents[1].glob("*/**/*.py")):
        text = source.read_bytes()
        if b"lodestar.data.jit import" in text:
            stamp.update(text)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "lodestar" / f"compiled-{stamp.hexdigest()[:16]}"


if not os.environ.get("NUMBA_CACHE_DIR"):
    numba.config.CACHE_DIR = str(_cache_folder())


def is_first_use() -> bool:
    """Say whether nothing has been compiled on this machine yet, so that a command can say why it takes longer."""
    return not Path(numba.config.CACHE_DIR).is_dir()


def jit(function: F) -> F:
    """Compile a function of arrays and numbers on its first call and keep the machine code on disk."""
    compiled: F = numba.njit(cache=True, error_model="numpy", nogil=True)(function)
    return compiled


def jit_inner(function: F) -> F:
    """Compile a function that only compiled code calls: no door from Python, no reference counts, no allocation.

    What it belongs to is kept on disk as a whole by the function that Python calls.
    """
    compiled: F = numba.njit(
        error_model="numpy", nogil=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True
    )(function)
    return compiled


def jit_as(signature: Any) -> Callable[[F], F]:
    """Compile for one signature only, so that the function can be handed to compiled code as a value."""

    def decorate(function: F) -> F:
        compiled: F = numba.njit(signature, cache=True, error_model="numpy", nogil=True)(function)
        return compiled

    return decorate
