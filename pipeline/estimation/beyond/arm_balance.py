"""Whether a coin gave each request its arm: what was known before the choice must not foretell it.

A coin of one share p that looks at nothing makes aᵢ − p a martingale difference: whatever came before, its mean is 0
and its variance p (1 − p). So Σ (aᵢ − p) over a bucket of requests is its own known variance off 0, however much load
and latencies hang together in time, as long as the bucket was known before the choice; no blocks are needed. Over the
k buckets of one covariate, X² = Σ_b n_b (ā_b − ā)² / (ā (1 − ā)) is χ² with k − 1 degrees of freedom: Pearson's.

A log that passes was not proved fair: what was not tested, or moved the arm by less than luck does, goes unseen.

References: Pearson 1900; Brown 1971 (central limit theorem of martingales).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from lodestar.data.errors import DataError
from lodestar.pipeline.estimation.intervals.simultaneous import holm

__all__ = ["FALSE_ALARM", "Balance", "Covariate", "Found", "arm_balance", "quantile_buckets"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: How often a fair log is called unfair, all covariates together: three standard errors.
FALSE_ALARM: Final = 0.0027
#: Requests of either arm that a bucket is to hold by the coin; with fewer, χ² is no good approximation so far out.
_FEWEST_EXPECTED: Final = 10.0


@dataclass(frozen=True, slots=True)
class Covariate:
    """What was known of each request before its arm was chosen, in buckets.

    Attributes:
        name: such as 'requests in flight'.
        bucket: of each request, 0 or more; -1 where nothing was known, shape (n,).
        texts: which requests a bucket holds, one a bucket, to follow 'of the requests'.
    """

    name: str
    bucket: Ints
    texts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Found:
    """What one covariate tells of the arms.

    Attributes:
        name: of the covariate.
        p: probability of as much by luck, by this or any other covariate (Holm).
        finding: where it tells most, in words with both sizes and what was expected.
    """

    name: str
    p: float
    finding: str


@dataclass(frozen=True, slots=True)
class Balance:
    """What all covariates tell of the arms.

    Attributes:
        tests: by p, the worst first; one at least.
        untested: covariates of which the log has too little, or only one value.
    """

    tests: tuple[Found, ...]
    untested: tuple[str, ...] = ()

    @classmethod
    def of(cls, found: Sequence[tuple[str, float, str]], untested: Sequence[str]) -> Balance:
        """Correct the p of each test for the number of them.

        Raises:
            DataError: there is no test.
        """
        if not found:
            raise DataError(
                f"nothing can tell whether the arms are balanced: too few requests or periods to test "
                f"{', '.join(untested) or 'anything'}. Log more"
            )
        p = holm(np.array([each[1] for each in found]))
        tests = [Found(name, each, says) for (name, _, says), each in zip(found, p, strict=True)]
        return cls(tuple(sorted(tests, key=lambda each: each.p)), tuple(untested))

    @property
    def passed(self) -> bool:
        """Whether luck explains all of it."""
        return self.tests[0].p >= FALSE_ALARM

    def to_dict(self) -> dict[str, Any]:
        """Return all of it ready for JSON."""
        return {
            "passed": self.passed,
            "false_alarm": FALSE_ALARM,
            "tests": [{"covariate": each.name, "p": each.p, "finding": each.finding} for each in self.tests],
            "untested": list(self.untested),
        }


def arm_balance(arm: Ints, covariates: Sequence[Covariate], name: str = "arm 1") -> Balance:
    """Test that no covariate foretells the arm of a request, for a coin of one share.

    Args:
        arm: of each request, in order of decision, 0 or 1, shape (n,).
        covariates: of the same requests.
        name: of arm 1.

    Raises:
        DataError: no covariate can be tested.

    >>> arm = np.tile([0, 0, 0, 1], 200)
    >>> busy = Covariate("load", np.tile([0, 0, 1, 1], 200), ("at low load", "at high load"))
    >>> found = arm_balance(arm, [busy], "router-b")
    >>> found.passed, found.tests[0].finding
    (False, 'router-b decided 0.0% of the requests at low load and 50.0% of the others; expected 25.0% of both')
    """
    found, untested = [], []
    for covariate in covariates:
        told = _test(arm, covariate, name)
        if told is None:
            untested.append(covariate.name)
        else:
            found.append((covariate.name, *told))
    return Balance.of(found, untested)


def quantile_buckets(values: Floats, buckets: int) -> tuple[Ints, list[str]]:
    """Return buckets of as many requests each, and the ends of each in words; -1 where there is no value.

    >>> bucket, texts = quantile_buckets(np.array([1.0, 2.0, 3.0, 4.0, np.nan]), 2)
    >>> bucket.tolist(), texts
    ([0, 0, 1, 1, -1], ['1 to 2', '3 to 4'])
    """
    known = np.isfinite(values)
    if not known.any():
        return np.full(len(values), -1, dtype=np.int64), []
    ends = np.unique(np.quantile(values[known], np.arange(1, buckets) / buckets))
    bucket = np.where(known, np.searchsorted(ends, np.where(known, values, 0.0), side="left"), -1)
    inside = [values[bucket == b] for b in range(len(ends) + 1)]
    return bucket, [f"{each.min():.4g} to {each.max():.4g}" if len(each) else "" for each in inside]


def _test(arm: Ints, covariate: Covariate, name: str) -> tuple[float, str] | None:
    """Return p and the finding of the bucket that is furthest off, or nothing where too few can be told apart."""
    kept = covariate.bucket >= 0
    requests = np.bincount(covariate.bucket[kept], minlength=len(covariate.texts)).astype(np.float64)
    share = float(arm[kept].mean()) if kept.any() else 0.0
    enough = requests * min(share, 1 - share) >= _FEWEST_EXPECTED
    kept &= enough[covariate.bucket] if len(enough) else False
    if enough.sum() < 2:
        return None
    share = float(arm[kept].mean())
    ones = np.bincount(covariate.bucket[kept], arm[kept], len(requests))
    requests = np.where(enough, requests, 0.0)
    variance = requests * share * (1 - share)
    off = np.divide((ones - requests * share) ** 2, variance, out=np.zeros_like(variance), where=variance > 0)
    p = float(chdtrc(int(enough.sum()) - 1, float(off.sum())))
    # Against the others, so that a small bucket and the rest of the log weigh as one comparison.
    rest = requests.sum() - requests
    most = int(np.argmax(np.where(enough & (rest > 0), off * requests.sum() / np.maximum(rest, 1.0), -1.0)))
    inside, outside = ones[most] / requests[most], (ones.sum() - ones[most]) / rest[most]
    return p, (
        f"{name} decided {inside:.1%} of the requests {covariate.texts[most]} and {outside:.1%} of the others; "
        f"expected {share:.1%} of both"
    )
