"""What a choice costs others, from the replay's counterfactuals: one decision changed, all that follows lived again.

Two replays with the same random numbers differ in one decision, and the policy goes on deciding in both. What the TTFTs
of all other requests differ by is the delay that the one choice imposes on them, where it was and on the whole fleet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.pipeline.online.ahead import Ahead
from lodestar.pipeline.replay.cluster import Cluster, Outcome
from lodestar.pipeline.replay.routing.contract import Policy

__all__ = ["HORIZON_S", "Weights", "imposed_delays", "learned_weights"]

Floats = NDArray[np.float64]

_HIT: Final = schema.SNAPSHOT_FIELDS.index(schema.HIT_RATIO)
_INFLIGHT: Final = schema.SNAPSHOT_FIELDS.index(schema.INFLIGHT_REQUESTS)
_TOKENS: Final = schema.SNAPSHOT_FIELDS.index(schema.PREFILL_TOKENS)
HORIZON_S: Final = 20.0
_DRAWS: Final = 500


@dataclass(frozen=True, slots=True)
class Weights:
    """Total-cost weights that counterfactuals teach, with 95 % intervals of a bootstrap over decisions.

    Attributes:
        ahead: delay of all others together, for each ms of prefill ahead, of a request of mean length.
        own: the same for each ms of the request's own prefill.
        ahead_interval: of `ahead`.
        own_interval: of `own`.
        explained: share of the sum of squares of the imposed delays; the rest is chance of the closed loop.
        decisions: that were changed.
    """

    ahead: float
    own: float
    ahead_interval: tuple[float, float]
    own_interval: tuple[float, float]
    explained: float
    decisions: int


def imposed_delays(
    cluster: Cluster, policy: Policy, decisions: Sequence[int], seed: int = 0, horizon_s: float = HORIZON_S
) -> tuple[Floats, Floats]:
    """Change decisions one at a time, to another candidate drawn at random, and replay what follows.

    Args:
        cluster: instances and workload.
        policy: that decides on all others.
        decisions: which requests.
        seed: of the replays, and of the draw.
        horizon_s: requests that come later are not counted: what reaches them is chance more than cause.

    Returns:
        What each change adds to the terms of `Weights`, in ms, shape (decisions, 2), and to the sum of the TTFTs of all
        other requests, in ms, shape (decisions,).
    """
    base = cluster.replay(policy, seed=seed, record=True)
    terms_of = _terms(cluster, base)
    rng, arrived_s = np.random.default_rng(seed), cluster.workload.arrived_at_s
    terms, delays = np.empty((len(decisions), 2)), np.empty(len(decisions))
    for at, i in enumerate(decisions):
        chosen = int(base.instance[i])
        others = np.setdiff1d(np.flatnonzero(~np.isnan(base.snapshots[i, :, _INFLIGHT])), [chosen])
        instead = int(rng.choice(others))
        forced = np.full(len(arrived_s), -1, dtype=np.int64)
        forced[:i], forced[i] = base.instance[:i], instead
        changed = cluster.replay(policy, forced=forced, seed=seed)
        waiting = np.flatnonzero(arrived_s[:i] + base.ttft_ms[:i] / 1e3 > arrived_s[i])
        after = np.arange(i + 1, np.searchsorted(arrived_s, arrived_s[i] + horizon_s))
        touched = np.concatenate([waiting, after])
        delays[at] = np.nansum(changed.ttft_ms[touched] - base.ttft_ms[touched])
        terms[at] = terms_of[i, instead] - terms_of[i, chosen]
    return terms, delays


def learned_weights(terms: Floats, delays: Floats, seed: int = 0) -> Weights:
    """Fit non-negative weights to what `imposed_delays` returned.

    >>> terms = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0], [1.0, 1.0]])
    >>> weights = learned_weights(terms, terms @ [1.5, 0.5])
    >>> round(weights.ahead, 3), round(weights.own, 3), round(weights.explained, 3)
    (1.5, 0.5, 1.0)
    """
    from scipy.optimize import nnls  # a third of a second, which nobody else waits for

    fitted = nnls(terms, delays)[0]
    rng, drawn = np.random.default_rng(seed), np.empty((_DRAWS, 2))
    for draw in range(_DRAWS):
        rows = rng.integers(0, len(delays), len(delays))
        drawn[draw] = nnls(terms[rows], delays[rows])[0]
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    left = float(((delays - terms @ fitted) ** 2).sum())
    return Weights(
        ahead=float(fitted[0]),
        own=float(fitted[1]),
        ahead_interval=(float(low[0]), float(high[0])),
        own_interval=(float(low[1]), float(high[1])),
        explained=1.0 - left / float((delays**2).sum()),
        decisions=len(delays),
    )


def _terms(cluster: Cluster, base: Outcome) -> Floats:
    """Return prefill ahead and own prefill, each times own uncached tokens over their mean, shape (n, m, 2)."""
    engines, arrived_s = cluster.engines, cluster.workload.arrived_at_s
    prompt_tokens = cluster.workload.prompt_tokens.astype(np.float64)
    token_ms = np.array([engine.prompt_token_ms for engine in engines])
    caching = np.array([engine.prefix_caching for engine in engines])
    ahead, terms = Ahead(), np.empty((len(arrived_s), len(engines), 2))
    for i, snapshot in enumerate(base.snapshots):
        counted = ahead.counted(float(arrived_s[i]), snapshot, token_ms.tolist())
        hit = np.nan_to_num(snapshot[:, _HIT]) * caching
        own = prompt_tokens[i] * (1.0 - hit)
        terms[i, :, 0] = token_ms * np.nan_to_num(counted[:, _TOKENS]) * own
        terms[i, :, 1] = token_ms * own * own
        ahead.sent(float(arrived_s[i]), int(base.instance[i]), float(own[base.instance[i]]))
    return terms / float(np.mean(prompt_tokens - base.cached_tokens))
