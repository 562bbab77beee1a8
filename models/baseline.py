"""What a latency costs by physics: a sum of works, each in ms a unit; trees correct it where it was trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.jit import jit
from lodestar.features.definitions import FEATURE_NAMES

__all__ = ["COUNTS", "WORKS", "Baseline", "baseline_ms", "fit_baseline"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_UNCACHED, _QUEUED = "uncached_prompt_tokens", "queued_requests"
_DECODING = schema.INFLIGHT_DECODE_REQUESTS

#: Works that delay the request, as products of at most two features: its own prompt, the tokens and requests before it,
#: an engine whose KV cache is full, and decoding that shares its steps with either prefill. They cost 0 ms or more.
WORKS: Final[tuple[tuple[str, ...], ...]] = (
    (),
    (schema.PROMPT_TOKENS,),
    (_UNCACHED,),
    (schema.PREFILL_TOKENS,),
    (schema.WAITING_REQUESTS,),
    (_QUEUED,),
    (_DECODING,),
    (schema.KV_USAGE_RATIO, _QUEUED),
    (_UNCACHED, _DECODING),
    (schema.PREFILL_TOKENS, _DECODING),
)
#: Counts that overlap with the works, of either sign: they take back what the works count twice (a request before its
#: first token is in the prefill tokens, in the queue and in flight; one that has decoded much will soon be gone).
COUNTS: Final[tuple[tuple[str, ...], ...]] = (
    (schema.RUNNING_REQUESTS,),
    (schema.INFLIGHT_REQUESTS,),
    (schema.INFLIGHT_PREFILL_REQUESTS,),
    (schema.DECODE_TOKENS,),
)
RIDGE: Final = 0.003  # share of each term's variance; keeps terms that rise and fall together from fighting


@dataclass(frozen=True, slots=True)
class Baseline:
    """Milliseconds for each term, and the latency below which it never goes.

    Attributes:
        coefficients_ms: term → ms for one unit of the product of its features.
        floor_ms: the shortest latency of the training window.
    """

    coefficients_ms: dict[tuple[str, ...], float]
    floor_ms: float

    def columns(self) -> tuple[Ints, Ints, Floats]:
        """Return the columns of both factors of every term (-1 where there is none) and the coefficients."""
        padded = [
            [FEATURE_NAMES.index(name) for name in term] + [-1] * (2 - len(term)) for term in self.coefficients_ms
        ]
        first, second = np.array(padded, dtype=np.int64).reshape(-1, 2).T.copy()
        return first, second, np.array(list(self.coefficients_ms.values()), dtype=np.float64)

    def predict(self, features: Floats) -> Floats:
        """Return ms for every row of `features` (n, len(FEATURES))."""
        out = np.empty(len(features))
        _predict(np.ascontiguousarray(features), *self.columns(), self.floor_ms, out)
        return out

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        terms = [{"features": list(term), "ms": ms} for term, ms in self.coefficients_ms.items()]
        return {"terms": terms, "floor_ms": self.floor_ms}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Baseline:
        """Read what `to_dict` wrote."""
        return cls({tuple(term["features"]): term["ms"] for term in values["terms"]}, values["floor_ms"])


@jit
def baseline_ms(row: Floats, first: Ints, second: Ints, coefficient_ms: Floats, floor_ms: float) -> float:
    """Return ms for one candidate; a term with a missing feature adds nothing."""
    total = 0.0
    for term in range(coefficient_ms.shape[0]):
        work = 1.0
        if first[term] >= 0:
            work *= row[first[term]]
        if second[term] >= 0:
            work *= row[second[term]]
        if not np.isnan(work):
            total += coefficient_ms[term] * work
    return max(total, floor_ms)


@jit
def _predict(features: Floats, first: Ints, second: Ints, ms: Floats, floor_ms: float, out: Floats) -> None:
    for i in range(features.shape[0]):
        out[i] = baseline_ms(features[i], first, second, ms, floor_ms)


def fit_baseline(features: Floats, latency_ms: Floats) -> Baseline:
    """Fit by least squares in ms with a light ridge; `WORKS` are non-negative, `COUNTS` are free.

    Squares of ms, not of ratios: the long latencies of a loaded instance determine the slopes, and slopes are what the
    baseline is for; trees correct the short ones. (Weights of 1 / latency cost 2 to 6 % of mean absolute error on loads
    beyond the training window, and works alone, without counts, cost 3 to 5 %.)

    >>> features = np.full((3, len(FEATURE_NAMES)), np.nan)
    >>> features[:, FEATURE_NAMES.index("prefill_tokens")] = [0.0, 1000.0, 2000.0]
    >>> fitted = fit_baseline(features, np.array([50.0, 150.0, 250.0]))
    >>> round(fitted.coefficients_ms[("prefill_tokens",)], 3), fitted.floor_ms
    (0.1, 50.0)
    """
    terms = (*WORKS, *COUNTS)
    plain = np.stack([_work(features, term) for term in terms], axis=1)
    signed = np.column_stack([plain, -plain[:, len(WORKS) :]])  # a free coefficient is the difference of two
    scale = np.maximum(np.abs(signed).max(axis=0), np.finfo(np.float64).tiny)
    ridge = np.diag(np.sqrt(RIDGE * len(features)) * (signed / scale).std(axis=0))
    from scipy.optimize import nnls  # a third of a second, which a replay without a model need not wait for

    positive, _ = nnls(np.vstack([signed / scale, ridge]), np.concatenate([latency_ms, np.zeros(len(scale))]))
    ms = (positive / scale)[: len(terms)]
    ms[len(WORKS) :] -= (positive / scale)[len(terms) :]
    return Baseline({term: float(x) for term, x in zip(terms, ms, strict=True)}, float(latency_ms.min()))


def _work(features: Floats, term: tuple[str, ...]) -> Floats:
    work = np.ones(len(features))
    for name in term:
        work = work * features[:, FEATURE_NAMES.index(name)]
    return np.nan_to_num(work, nan=0.0)
