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
    (schema.PREFILL_TOKENS, _DECODING),
)
#: Counts that overlap with the works, of either sign: they take back what the works count twice (a running request is
#: in the prefill tokens, or decodes; one that has decoded much will soon be gone). Requests in flight are no term: they
#: are the sum of others but for noise, and large coefficients of opposite signs multiplied that noise at high loads.
COUNTS: Final[tuple[tuple[str, ...], ...]] = ((schema.RUNNING_REQUESTS,), (schema.DECODE_TOKENS,))
RIDGE: Final = 1e-5  # share of each term's variance; decides between terms that rise and fall together, and no more
VARIANCE_POWER: Final = 0.75  # the spread of a latency grows with it: its variance as this power of its baseline
OUTLIER: Final = 2.0  # robust standard deviations of the relative error, from where a row pulls no harder (Huber)
ROUNDS: Final = 15  # of reweighting; on real logs, more change no prediction by over 0.2 %
MAX_ROWS: Final = 20_000  # evenly spaced over the window: a dozen coefficients need no more
#: Shares of the rows, those with the most work, beyond which a step may be full: where a ceiling is looked for.
FULL_SHARES: Final = (0.1, 0.25, 0.5, 0.75, 0.9)
FULL_GAIN: Final = 0.1  # of the loss: what a ceiling has to save. On real logs it saves over a quarter, or under 1 %
FULL_ROWS: Final = 5000  # evenly spaced: enough to find a ceiling, and five more fits take little longer than the first


@dataclass(frozen=True, slots=True)
class Baseline:
    """Milliseconds for each term, and the latencies that it never leaves.

    Attributes:
        coefficients_ms: term → ms for one unit of the product of its features.
        floor_ms: the shortest latency of the training window.
        ceiling_ms: latency of an engine whose steps are full; infinity where more work always takes longer.
    """

    coefficients_ms: dict[tuple[str, ...], float]
    floor_ms: float
    ceiling_ms: float = np.inf

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
        _predict(np.ascontiguousarray(features), *self.columns(), self.floor_ms, self.ceiling_ms, out)
        return out

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        terms = [{"features": list(term), "ms": ms} for term, ms in self.coefficients_ms.items()]
        ceiling = {"ceiling_ms": self.ceiling_ms} if np.isfinite(self.ceiling_ms) else {}  # JSON has no infinity
        return {"terms": terms, "floor_ms": self.floor_ms} | ceiling

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Baseline:
        """Read what `to_dict` wrote."""
        coefficients_ms = {tuple(term["features"]): term["ms"] for term in values["terms"]}
        return cls(coefficients_ms, values["floor_ms"], values.get("ceiling_ms", np.inf))


@jit
def baseline_ms(
    row: Floats, first: Ints, second: Ints, coefficient_ms: Floats, floor_ms: float, ceiling_ms: float = np.inf
) -> float:
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
    return min(max(total, floor_ms), ceiling_ms)


@jit
def _predict(
    features: Floats, first: Ints, second: Ints, ms: Floats, floor_ms: float, ceiling_ms: float, out: Floats
) -> None:
    for i in range(features.shape[0]):
        out[i] = baseline_ms(features[i], first, second, ms, floor_ms, ceiling_ms)


def fit_baseline(features: Floats, latency_ms: Floats, target: str = schema.TTFT_MS) -> Baseline:
    """Fit by robust weighted least squares in ms (Huber, 1964); `WORKS` are non-negative, `COUNTS` are free.

    In ms, not in logarithms: the long latencies of a loaded instance determine the slopes, and slopes are what the
    baseline is for. Robust, because an engine that stalled for seconds at no load at all (while it compiles a kernel,
    say) would otherwise bend every slope: on one real log, a dozen such rows of 1700 raised the error fourfold.

    A TPOT is the time of a step, and a step can be full: of requests, and of prefill tokens. What waits beyond that
    delays the first token and no other. Where the rows show it, the baseline of a TPOT has a ceiling.

    Args:
        features: shape (n, len(FEATURES)); a missing feature makes its terms 0.
        latency_ms: shape (n,), positive.
        target: 'ttft_ms', 'tpot_ms' or 'e2e_ms'.

    >>> features = np.full((3, len(FEATURE_NAMES)), np.nan)
    >>> features[:, FEATURE_NAMES.index("prefill_tokens")] = [0.0, 1000.0, 2000.0]
    >>> fitted = fit_baseline(features, np.array([50.0, 150.0, 250.0]))
    >>> round(fitted.coefficients_ms[("prefill_tokens",)], 3), fitted.floor_ms
    (0.1, 50.0)
    """
    fitted = _unbounded(features, latency_ms)
    return _bounded(features, latency_ms, fitted) if target == schema.TPOT_MS else fitted


def _unbounded(features: Floats, latency_ms: Floats) -> Baseline:
    terms, floor_ms = (*WORKS, *COUNTS), float(latency_ms.min())
    some = slice(None, None, -(-len(features) // MAX_ROWS))
    plain = np.stack([_work(features[some], term) for term in terms], axis=1)
    signed = np.column_stack([plain, -plain[:, len(WORKS) :]])  # a free coefficient is the difference of two
    scale = np.abs(signed).max(axis=0)
    seen = scale > 0.0  # a term that is always 0 has no coefficient
    ms = np.zeros(len(scale))
    ms[seen] = _robust(signed[:, seen] / scale[seen], latency_ms[some], floor_ms) / scale[seen]
    ms[len(WORKS) : len(terms)] -= ms[len(terms) :]
    return Baseline({term: float(x) for term, x in zip(terms, ms, strict=False)}, floor_ms)


def _bounded(features: Floats, latency_ms: Floats, unbounded: Baseline) -> Baseline:
    """Return the baseline with the ceiling that fits best, or as it is where none fits better by `FULL_GAIN`.

    For each of `FULL_SHARES`, the rows with the most work give the ceiling, and the others the slopes.
    """
    some = slice(None, None, -(-len(features) // FULL_ROWS))
    features, latency_ms = features[some], latency_ms[some]
    work_ms = unbounded.predict(features)
    best, least = unbounded, (1.0 - FULL_GAIN) * _loss(latency_ms, work_ms, work_ms)
    for share in FULL_SHARES:
        full = work_ms >= np.quantile(work_ms, 1.0 - share)
        if full.all():  # all rows have the same work
            continue
        level_ms = float(_robust(np.ones((int(full.sum()), 1)), latency_ms[full], unbounded.floor_ms)[0])
        ceiling_ms = max(level_ms, unbounded.floor_ms)
        slopes = _unbounded(features[~full], latency_ms[~full]).coefficients_ms
        bounded = Baseline(slopes, unbounded.floor_ms, ceiling_ms)
        if (loss := _loss(latency_ms, bounded.predict(features), work_ms)) < least:
            best, least = bounded, loss
    return best


def _loss(latency_ms: Floats, predicted_ms: Floats, scale_ms: Floats) -> float:
    """Return what `_robust` minimises, with weights and limit by `scale_ms`, so that baselines can be compared."""
    reference = np.abs(latency_ms - scale_ms) / scale_ms
    limit = OUTLIER * max(1.4826 * float(np.median(reference)), np.finfo(np.float64).eps)
    error = np.abs(latency_ms - predicted_ms) / scale_ms
    within = np.minimum(error, limit)
    return float((scale_ms ** (2.0 - VARIANCE_POWER) * within * (2.0 * error - within)).mean())


def _robust(works: Floats, latency_ms: Floats, floor_ms: float) -> Floats:
    """Reweigh and solve in turn: by the spread that the last solution gives each row, and less where it is far off."""
    weight = np.ones(len(works))
    for _ in range(ROUNDS):
        coefficient = _non_negative(works, latency_ms, weight / weight.mean())
        physical = np.maximum(works @ coefficient, floor_ms)
        error = np.abs(latency_ms - physical) / physical
        limit = OUTLIER * max(1.4826 * float(np.median(error)), np.finfo(np.float64).eps)
        weight = physical**-VARIANCE_POWER * np.minimum(1.0, limit / np.maximum(error, limit))
    return coefficient


def _non_negative(works: Floats, latency_ms: Floats, weight: Floats) -> Floats:
    """Solve the normal equations with a ridge of `RIDGE` times each column's variance, coefficients ≥ 0."""
    from scipy.optimize import nnls  # a third of a second, which a replay without a model need not wait for

    weighted = works * weight[:, None]
    mean = weighted.mean(axis=0)
    variance = np.maximum((weighted * works).mean(axis=0) - mean**2, 0.0)
    gram = weighted.T @ works / len(works) + np.diag(RIDGE * variance)
    share, axes = np.linalg.eigh(gram)  # a term that never varies, or repeats another, leaves it singular
    known = share > share[-1] * len(gram) * np.finfo(np.float64).eps
    root = np.sqrt(share[known])
    towards = axes[:, known].T @ (weighted.T @ latency_ms) / len(works)
    solution: Floats = nnls(root[:, None] * axes[:, known].T, towards / root)[0]
    return solution


def _work(features: Floats, term: tuple[str, ...]) -> Floats:
    work = np.ones(len(features))
    for name in term:
        work = work * features[:, FEATURE_NAMES.index(name)]
    return np.nan_to_num(work, nan=0.0)
