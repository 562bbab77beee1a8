"""How far replayed latencies are from logged ones: request by request, and band by band of their distributions."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["BANDS", "band_means", "distance"]

Floats = NDArray[np.float64]

#: Shares of the requests, fastest first: requests alone would fit the median and let the mean and the tail go.
_EDGES: Final = np.array([0.0, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0])
BANDS: Final = len(_EDGES) - 1


def distance(replayed: Floats, logged: Floats, weight: Floats) -> float:
    """Return the mean absolute difference of the logs, request by request plus band by band.

    >>> logged = np.log([100.0, 200.0, 400.0])
    >>> round(distance(logged + 0.1, logged, np.ones(3)), 6)
    0.2
    """
    bands = band_means(replayed, weight) - band_means(logged, weight)
    return float(np.average(np.abs(replayed - logged), weights=weight) + np.abs(bands).mean())


def band_means(values: Floats, weight: Floats, of: Floats | None = None) -> Floats:
    """Return the weighted mean in each band of `values`; or that of `of`, whose rows go with them.

    A value on an edge counts for its share on either side, so that no band is ever empty.

    >>> band_means(np.arange(10.0), np.ones(10)).tolist()
    [0.5, 2.5, 4.5, 6.5, 8.333333333333334, 9.0]
    """
    order = np.argsort(values)
    taken = (values[:, None] if of is None else of)[order]
    share = np.concatenate([[0.0], np.cumsum(weight[order])])
    sums = np.concatenate([np.zeros((1, taken.shape[1])), np.cumsum(taken * weight[order][:, None], axis=0)])
    at = _EDGES * share[-1]
    below = np.clip(np.searchsorted(share, at, side="right") - 1, 0, len(order) - 1)
    within = (at - share[below]) / np.maximum(share[below + 1] - share[below], 1e-300)
    means: Floats = np.diff(sums[below] + within[:, None] * (sums[below + 1] - sums[below]), axis=0)
    means /= np.diff(at)[:, None]
    return means[:, 0] if of is None else means
