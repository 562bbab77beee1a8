"""A refit of a chain: what to try, what came of it, and where the chain stands then."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lodestar.models.latency import LatencyModel
from lodestar.models.parameters import Parameters
from lodestar.models.refresh.chain import Chain
from lodestar.models.refresh.due import Due
from lodestar.models.refresh.learn import Learned, learned
from lodestar.models.refresh.plan import plan, window_of
from lodestar.models.refresh.recent import Recent
from lodestar.models.uncertainty.calibrate import settled

__all__ = ["Refit", "refit"]


@dataclass(frozen=True, slots=True)
class Refit:
    """What came of it.

    Attributes:
        chain: as it goes on, but for the model, its record and the rows, which are as they were.
        learned: the models and their measure.
        why: in words.
    """

    chain: Chain
    learned: Learned
    why: str


def refit(chain: Chain, recent: Recent, found: Due, strategy: str, seed: int, known_s: float) -> Refit:
    """Learn from the rows of `recent` that wait.

    What they tell of the quantiles is learned before, with the heads that had not seen them: the new ones have.

    Args:
        chain: as it was.
        recent: of its rows those whose outcome was known then.
        found: why it is due.
        strategy: asked for.
        seed: of the fits.
        known_s: when the last outcome of `recent` was known.
    """
    parameters = Parameters(**chain.trained.record["parameters"])
    planned = plan(chain, strategy, found, parameters)
    model, left = settled(chain.trained.model, chain.in_flight, known_s)
    window, pending = window_of(recent, found), recent.pending
    after = learned(planned.strategies, model, window, pending, parameters, seed, chain.updates)
    listens_from = chain.listens_from
    if found.drifted:
        listens_from = int(recent.rows.request_index[len(recent) - found.drifted])
    gone_on = replace(
        chain,
        before=_before(chain),
        in_flight=left,
        updates=chain.updates + 1,
        choice=after.choice or chain.choice,
        listens_from=listens_from,
    )
    return Refit(gone_on, after, f"{found.reason}; {planned.why}{f'; {after.choice.why}' if after.choice else ''}")


def _before(chain: Chain) -> tuple[tuple[float, LatencyModel], ...]:
    """Return the models that may decide the requests until the next model is known."""
    models = (*chain.before, (chain.known_from_s, chain.trained.model))
    last_s = chain.recent.rows.arrived_at_s[-1]
    return tuple(
        model for model, later in zip(models, (*models[1:], None), strict=True) if not later or later[0] > last_s
    )
