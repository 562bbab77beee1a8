"""Matrix products on one thread, whatever the BLAS library thinks of it.

OpenBLAS starts its threads for products beyond a size. They wait for each other in a busy loop, which helps a training
of batches this small little, and slows it down many times where the other cores have work of their own. Cut into
pieces below that size, products stay on the calling thread, without a setting that the whole process would notice, and
are the same to the last bit whatever the number of cores.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["product"]

#: Multiplications up to which OpenBLAS stays on one thread: ``SMP_THRESHOLD_MIN · GEMM_MULTITHREAD_THRESHOLD``, and the
#: greatest number below that of a matrix and a vector (``interface/gemm.c``, ``interface/gemv.c``).
_MATRICES: Final = 65536 * 4
_VECTOR: Final = 2304 * 4 - 1


def product(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Return ``a @ b`` of a matrix (n, k) and a matrix (k, m) or a vector (k,).

    >>> a, b = np.arange(6000.0).reshape(1000, 6), np.ones((6, 50))
    >>> np.array_equal(product(a, b), a @ b), np.array_equal(product(a, b[:, 0]), a @ b[:, 0])
    (True, True)
    """
    rows = max((_MATRICES if b.ndim == 2 else _VECTOR) // b.size, 1)
    if len(a) <= rows:
        return np.asarray(a @ b)
    out = np.empty((len(a), *b.shape[1:]), dtype=np.result_type(a, b))
    whole = len(a) - len(a) % rows
    np.matmul(a[:whole].reshape(-1, rows, a.shape[1]), b, out=out[:whole].reshape(-1, rows, *b.shape[1:]))
    if whole < len(a):
        np.matmul(a[whole:], b, out=out[whole:])
    return out
