"""LightGBM's C API on preallocated numbers, as a server written in C would call it."""

from __future__ import annotations

import ctypes
from types import TracebackType

import numpy as np
from lightgbm.basic import _LIB as LIBRARY
from numpy.typing import NDArray

__all__ = ["CModel"]

Floats = NDArray[np.float64]

_FLOAT64, _ROW_MAJOR, _NORMAL, _ALL_TREES = 1, 1, 0, -1


class CModel:
    """A model text, loaded by the C API; frees it when left."""

    def __init__(self, text: str, columns: int, rows: int, parameters: str = "num_threads=1") -> None:
        self.rows = np.zeros((rows, columns))
        self.raw = np.zeros(rows)
        self._model, self._fast, self._parameters = ctypes.c_void_p(), ctypes.c_void_p(), parameters.encode()
        self._count = ctypes.c_int64()
        trees = ctypes.c_int()
        _check(LIBRARY.LGBM_BoosterLoadModelFromString(text.encode(), ctypes.byref(trees), ctypes.byref(self._model)))
        _check(
            LIBRARY.LGBM_BoosterPredictForMatSingleRowFastInit(
                self._model, _NORMAL, 0, _ALL_TREES, _FLOAT64, columns, self._parameters, ctypes.byref(self._fast)
            )
        )
        self._row_pointers = [ctypes.c_void_p(row.ctypes.data) for row in self.rows]
        self._raw_pointers = [ctypes.c_void_p(self.raw[i:].ctypes.data) for i in range(rows)]

    def __enter__(self) -> CModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        LIBRARY.LGBM_FastConfigFree(self._fast)
        LIBRARY.LGBM_BoosterFree(self._model)

    def all_rows(self) -> Floats:
        """Predict all of `rows` in one call, into `raw`."""
        rows, columns = self.rows.shape
        _check(
            LIBRARY.LGBM_BoosterPredictForMat(
                self._model, self._row_pointers[0], _FLOAT64, ctypes.c_int32(rows), ctypes.c_int32(columns), _ROW_MAJOR,
                _NORMAL, 0, _ALL_TREES, self._parameters, ctypes.byref(self._count), self._raw_pointers[0],
            )
        )  # fmt: skip
        return self.raw

    def row_by_row(self) -> Floats:
        """Predict each of `rows` by the fast path for single rows, into `raw`."""
        count = ctypes.byref(self._count)
        for row, raw in zip(self._row_pointers, self._raw_pointers, strict=True):
            _check(LIBRARY.LGBM_BoosterPredictForMatSingleRowFast(self._fast, row, count, raw))
        return self.raw


def _check(status: int) -> None:
    if status != 0:
        raise RuntimeError(LIBRARY.LGBM_GetLastError().decode())
