"""What a decision counts: a request's own latency on each candidate, and what the choice makes others wait.

The cost of a candidate in ms::

    ttft_weight · TTFT + tpot_weight · tokens · TPOT + e2e_weight · (TTFT + tokens · TPOT) + slo_weight · P(TTFT > slo)
        + imposed · (length · prefill ahead + min(length, 2) · own_share · own prefill)
        + churn · own prefill · (what was written into this cache of late, over the mean - 1)

with length as the request's uncached tokens over their mean. The second line is the marginal cost to others of
size-aware dispatching (Hyytiä, Penttinen and Aalto 2012): to a first come, first served queue with a backlog W that is
busy a share ρ of the time, a request that needs p imposes λ p (W + p / 2) / (1 - ρ) on those who come behind it, and λ
is ρ over the mean need. `imposed` stands for ρ / (1 - ρ); `own_share` is below 1/2 and does not grow for ever, since
those who come behind decide as well and go elsewhere. The third is for caches: what is written evicts what others would
have found, sooner where more is written, and at low load nothing else keeps requests from a few instances.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.models.online.brain import Predicted
from lodestar.pipeline.online.settings import PHYSICS, OnlineSettings

__all__ = ["Traffic", "total_cost_ms"]

Floats = NDArray[np.float64]

_HIT: Final = schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)
_DECODING: Final = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_DECODE_REQUESTS)
_LONGEST: Final = 2.0  # times the mean length, as which a longer request counts with its own prefill
_RECENT: Final = 500  # requests over which the mean length is taken, and what was written into caches


class Traffic:
    """What a router has sent of late.

    Attributes:
        mean_tokens: uncached prompt tokens of a request.
    """

    def __init__(self) -> None:
        """Begin with nothing sent."""
        self.mean_tokens = 0.0
        self._came = 0
        self._written = np.zeros(0)
        self._caching: set[str] = set()

    def came(self, uncached_tokens: float) -> None:
        """Take down the length of a request, wherever it goes."""
        self._came += 1
        self.mean_tokens += (uncached_tokens - self.mean_tokens) / min(self._came, _RECENT)

    def length(self, uncached_tokens: Floats) -> Floats:
        """Return tokens over their mean; 1 as long as nothing came to compare with."""
        return uncached_tokens / self.mean_tokens if self.mean_tokens > 0.0 else np.ones(len(uncached_tokens))

    def wrote(self, instance: int, uncached_tokens: float) -> None:
        """Take down where a request went, and so what is in which cache.

        >>> traffic, snapshot = Traffic(), np.full((2, len(schema.SNAPSHOT_FIELDS)), 0.5)
        >>> for instance in (0, 0, 0, 1):
        ...     traffic.wrote(instance, 1000.0)
        >>> traffic.churn(snapshot, ["", ""]).round(2).tolist()
        [0.5, -0.5]
        """
        self._make_room(instance + 1)
        self._written *= 1.0 - 1.0 / _RECENT
        self._written[instance] += uncached_tokens

    def churn(self, snapshot: Floats, kinds: Sequence[str]) -> Floats:
        """Return how much of late was written into each cache, over their mean, less 1; 0 where nothing is cached.

        A kind of instance caches prefixes if one of it ever had a hit.
        """
        self._make_room(len(snapshot))
        self._caching.update(kinds[j] for j in np.flatnonzero(snapshot[:, _HIT] > 0.0).tolist())
        caches = np.array([kind in self._caching for kind in kinds])
        if not caches.any():
            return np.zeros(len(snapshot))
        written = self._written[: len(snapshot)]
        return np.where(caches, written / max(float(written[caches].mean()), 1.0) - 1.0, 0.0)

    def _make_room(self, instances: int) -> None:
        if len(self._written) < instances:
            self._written = np.concatenate([self._written, np.zeros(instances - len(self._written))])


def total_cost_ms(
    settings: OnlineSettings,
    predicted: Predicted,
    snapshot: Floats,
    kinds: Sequence[str],
    traffic: Traffic,
    log_sigma: float,
) -> Floats:
    """Return the total cost of every instance in ms, shape (m,); NaN where something it needs is not known.

    Args:
        settings: the weights.
        predicted: the request on every instance.
        snapshot: what is known of every instance, shape (m, len(SNAPSHOT_FIELDS)).
        kinds: hardware of each.
        traffic: what was sent before.
        log_sigma: standard deviation of log(TTFT / prediction).
    """
    its, tokens, ttft_ms = settings, settings.expected_output_tokens, predicted.ttft_ms
    if its.outside == PHYSICS:  # a model that has seen no queue knows of none
        ttft_ms = np.where(predicted.outside, np.maximum(ttft_ms, predicted.own_ms + predicted.ahead_ms), ttft_ms)
    cost = its.ttft_weight * ttft_ms
    decodes = its.tpot_weight + its.e2e_weight
    if decodes:
        decode_ms = tokens * predicted.tpot_ms
        cost = cost + its.tpot_weight * decode_ms + its.e2e_weight * (ttft_ms + decode_ms)
    if its.slo_ttft_ms > 0.0:
        cost = cost + its.slo_weight * _miss(ttft_ms, its.slo_ttft_ms, log_sigma)
    if its.imposed:
        length = traffic.length(predicted.uncached_tokens)
        own_ms = its.own_share * predicted.own_ms * np.minimum(length, _LONGEST)
        cost = cost + its.imposed * (predicted.ahead_ms * length + own_ms)
        if decodes:  # and the steps of those that decode are longer by it
            cost = cost + decodes * predicted.own_ms * np.nan_to_num(snapshot[:, _DECODING])
    if its.churn:
        cost = cost + its.churn * predicted.own_ms * traffic.churn(snapshot, kinds)
    return cost


def _miss(ttft_ms: Floats, slo_ms: float, log_sigma: float) -> Floats:
    """Return the probability that the TTFT exceeds the SLO, of a log-normal law around the prediction."""
    z = np.log(np.maximum(ttft_ms, 1e-3) / slo_ms) / (max(log_sigma, 1e-3) * math.sqrt(2.0))
    return np.array([0.5 * (1.0 + math.erf(value)) for value in z.tolist()])
