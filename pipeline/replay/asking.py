"""A decision in plain Python as compiled code calls it: through a C function."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from numba.core.types import WrapperAddressProtocol

from lodestar.pipeline.replay.loop import DECISION

__all__ = ["Asked"]


class Asked(WrapperAddressProtocol):
    """What `run` takes for a compiled decision; the interpreter's lock is taken for the time of a call only.

    Attributes:
        error: what the decision raised; it cannot pass through compiled code, so the caller raises it afterwards.
    """

    def __init__(self, decide: Callable[[int], int]) -> None:
        self.error: BaseException | None = None

        def call(i: int) -> int:
            try:
                return decide(i)
            except BaseException as error:  # ctrl-C too
                self.error = error
                return -1

        self._call = call
        self._function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(call)

    def __call__(self, i: int) -> int:
        """Decide, as compiled code does it."""
        return self._call(i)

    def __wrapper_address__(self) -> int:
        return ctypes.cast(self._function, ctypes.c_void_p).value or 0

    def signature(self) -> object:
        """Return the type that compiled code knows it by."""
        return DECISION
