"""Counters that were logged after the decision: found by what they show, and freed of the request itself."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from lodestar.data import schema as s
from lodestar.data.log import Floats, Inferred, RequestLog

__all__ = ["OwnShare", "own_share", "without_own"]

COUNTED: Final = (s.INFLIGHT_REQUESTS, s.INFLIGHT_PREFILL_REQUESTS, s.PREFILL_TOKENS)
ERRORS: Final = 5.0  # standard errors that make it certain
COVERED: Final = 0.99  # share of the chosen instances whose counter must hold the request itself
FEWEST: Final = 30  # pairs of decisions that can tell


class OwnShare(NamedTuple):
    """How much of a request its own snapshot holds, from -1 to 1, with the standard error and the pairs compared.

    About -1: the counter is read before the decision, and the next decision sees the request. About 1: the request is
    in its own snapshot already.
    """

    excess: float
    error: float
    pairs: int

    @property
    def is_inside(self) -> bool:
        """Say whether the counter certainly holds the request itself."""
        return self.pairs >= FEWEST and self.excess > ERRORS * self.error


def without_own(log: RequestLog) -> tuple[dict[str, Floats], dict[str, Inferred]]:
    """Return the snapshot as it was before each decision, and what was taken off which field, with the evidence."""
    snapshot, found = {name: values.copy() for name, values in log.snapshot.items()}, {}
    rows = np.flatnonzero(log.chosen >= 0)
    for name in COUNTED:
        share, own = own_share(log, name), _own(log, name)[rows]
        if not share.is_inside:
            continue
        at_chosen = snapshot[name][rows, log.chosen[rows]]
        snapshot[name][rows, log.chosen[rows]] = np.maximum(at_chosen - own, 0.0)
        found[name] = Inferred(
            name,
            "logged after the decision: the request's own contribution was taken off the chosen instance",
            "share of the request in its own snapshot, less that in the next",
            share.excess,
            f"standard error {share.error:.2f}, {share.pairs} pairs of decisions",
        )
    return snapshot, found


def own_share(log: RequestLog, name: str) -> OwnShare:
    """Compare neighbouring decisions on different instances: where does the counter grow, and when?

    From one decision to the next, a counter read before the decision grows where the *first* went; one read after it
    grows where the *second* goes. Both lose what completes in between, which the difference cancels. No arrival times
    are needed. A counter that does not cover the request itself on the chosen instance cannot hold it.
    """
    rows = np.flatnonzero(log.chosen[:-1] >= 0)
    rows = rows[(log.chosen[rows + 1] >= 0) & (log.chosen[rows + 1] != log.chosen[rows])]
    own, values = _own(log, name), log.snapshot[name]
    first, second = log.chosen[rows], log.chosen[rows + 1]
    growth_first = (values[rows + 1, first] - values[rows, first]) / own[rows]
    growth_second = (values[rows + 1, second] - values[rows, second]) / own[rows + 1]
    excess = growth_second - growth_first
    excess = excess[np.isfinite(excess)]
    if len(excess) < 2 or not _covers(log, name):
        return OwnShare(-1.0, 0.0, len(excess))
    return OwnShare(float(excess.mean()), float(excess.std() / np.sqrt(len(excess))), len(excess))


def _own(log: RequestLog, name: str) -> Floats:
    amount = log.prompt_tokens if name == s.PREFILL_TOKENS else np.ones(len(log))
    return np.where(amount > 0, amount, np.nan).astype(np.float64)


def _covers(log: RequestLog, name: str) -> bool:
    rows = np.flatnonzero(log.chosen >= 0)
    chosen, own = log.snapshot[name][rows, log.chosen[rows]], _own(log, name)[rows]
    known = ~np.isnan(chosen) & ~np.isnan(own)
    return bool(known.any() and np.mean(chosen[known] >= own[known]) >= COVERED)
