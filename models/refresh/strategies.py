"""Ways to bring a model up to date with new rows; each takes and returns a `LatencyModel`."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from lodestar.data.errors import unknown
from lodestar.models.fit import extend, fit
from lodestar.models.latency import LatencyModel
from lodestar.models.parameters import MAX_TREES, Parameters
from lodestar.models.refresh.carry import carried
from lodestar.models.refresh.leaf_refit import refit_leaves
from lodestar.models.rows import Rows

__all__ = ["AUTO", "CONTINUE", "REFIT", "STRATEGIES", "WINDOW", "fits_under_cap", "refreshed", "require_strategy"]

CONTINUE: Final = "continue"
WINDOW: Final = "window"
REFIT: Final = "refit"
#: What `refreshed` knows.
STRATEGIES: Final = (CONTINUE, WINDOW, REFIT)
#: Choose between them by measured cost and loss; see `choice.py`.
AUTO: Final = "auto"


def require_strategy(name: str) -> None:
    """Refuse a name that no strategy has."""
    if name not in (AUTO, *STRATEGIES):
        raise unknown("strategy", name, (AUTO, *STRATEGIES))


def refreshed(
    strategy: str, model: LatencyModel, window: Rows, new: Rows, parameters: Parameters, seed: int
) -> LatencyModel:
    """Return the model after learning.

    'continue' adds trees fitted to the new rows; 'window' fits all anew on the newest rows that are kept (as many as
    `recent.rows_to_keep` says: without ``window_requests``, `recent.RECENT_ROWS`, however many a full fit had); 'refit'
    keeps every split
    of the mean and gives its leaves new values. Only 'window' fits quantile heads: a leaf refit would move their leaves
    to the mean. The heads of the other two stay, and every head takes the conformal correction over.

    Args:
        strategy: one of `STRATEGIES`.
        model: as it was.
        window: newest rows, the new ones among them.
        new: rows that the model has not learned from.
        parameters: of the fit.
        seed: of the fit.
    """
    if strategy == CONTINUE:
        after = extend(model, new, parameters, seed)
    elif strategy == REFIT:
        after = refit_leaves(model, new, parameters, seed)
    else:
        after = fit(window, model.target, parameters, seed)[0]
    return replace(after, conformal=carried(model, after, window))


def fits_under_cap(strategy: str, model: LatencyModel, parameters: Parameters) -> bool:
    """Say whether the strategy keeps the trees within their limit: scoring time grows with them."""
    return strategy != CONTINUE or model.trees + parameters.update_rounds <= MAX_TREES
