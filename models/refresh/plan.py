"""Which strategies an update tries, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from lodestar.models.parameters import MAX_TREES, Parameters
from lodestar.models.refresh.chain import Chain
from lodestar.models.refresh.choice import REMEASURE_AFTER
from lodestar.models.refresh.due import Due, parted
from lodestar.models.refresh.recent import Recent
from lodestar.models.refresh.strategies import AUTO, CONTINUE, STRATEGIES, WINDOW, fits_under_cap
from lodestar.models.rows import Rows

__all__ = ["Plan", "plan", "window_of"]

MOST_UPDATES: Final = 50  # after which all is fitted anew: what an old structure has never seen adds up
DRIFT_ROWS: Final = 300  # at least as many teach after a drift


@dataclass(frozen=True, slots=True)
class Plan:
    """Strategies to try; the only one, or those among which to choose; and why."""

    strategies: tuple[str, ...]
    why: str


def plan(chain: Chain, strategy: str, found: Due, parameters: Parameters) -> Plan:
    """Return what to try for one update.

    Args:
        chain: the newest model and what was chosen before.
        strategy: asked for; 'auto' leaves the choice to measurement.
        found: why the update is due.
        parameters: of the fits.
    """
    model = chain.trained.model
    if len(chain.trained.record["window"]["parts"]) > MOST_UPDATES:
        return Plan((WINDOW,), f"window: {MOST_UPDATES} updates since the last full fit")
    possible = tuple(name for name in STRATEGIES if fits_under_cap(name, model, parameters))
    if strategy == AUTO:
        return _auto(chain, found, possible)
    if strategy == CONTINUE and found.drifted:
        return Plan((WINDOW,), "window: what drifted is not continued")
    if strategy not in possible:
        more = f"{model.trees} trees and {parameters.update_rounds} more would exceed {MAX_TREES}"
        return Plan((WINDOW,), f"window: {more}")
    return Plan((strategy,), f"{strategy}: asked for")


def _auto(chain: Chain, found: Due, possible: tuple[str, ...]) -> Plan:
    choice = chain.choice
    if choice is None:
        return Plan(possible, "measured for the first time")
    if found.drifted:
        return Plan(possible, "measured again after a drift")
    if not choice.holds(chain.updates):
        return Plan(possible, f"measured again after {REMEASURE_AFTER} updates")
    if choice.strategy not in possible:
        return Plan((WINDOW,), f"window: {chain.trained.model.trees} trees are as many as there may be")
    return Plan((choice.strategy,), f"{choice.strategy}: chosen {chain.updates - choice.update} updates ago")


def window_of(recent: Recent, found: Due) -> Rows:
    """Return the newest rows that a full fit learns from: after a drift those of the new regime, yet enough."""
    if not found.drifted:
        return recent.rows
    _, newest = parted(recent.pending)
    known = np.flatnonzero(recent.rows.finished_at_s <= newest.arrived_at_s[0])
    least = len(recent) - (int(known[-DRIFT_ROWS]) if len(known) > DRIFT_ROWS else 0)
    return recent.rows.last(max(found.drifted, least))
