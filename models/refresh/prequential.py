"""Strategies compared on a stream: every batch is predicted by the model that existed when it began.

Labels arrive when requests finish: a model learns only from those that had finished before the batch began (Bifet et
al. 2015 call it delayed prequential evaluation; river's ``progressive_val_score`` has the same meaning of ``delay``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from lodestar.models.fit import fit
from lodestar.models.latency import LatencyModel
from lodestar.models.parameters import Parameters
from lodestar.models.refresh.begin import begun
from lodestar.models.refresh.chain import Chain
from lodestar.models.refresh.due import due
from lodestar.models.refresh.learn import Learned
from lodestar.models.refresh.losses import Losses, losses_of
from lodestar.models.refresh.refit import refit
from lodestar.models.refresh.score import scored
from lodestar.models.refresh.strategies import WINDOW
from lodestar.models.registry.current import Trained
from lodestar.models.rows import Rows

__all__ = ["STATIC", "BatchScore", "prequential"]

STATIC: Final = "static"  # learns nothing: what the strategies are compared with


@dataclass(frozen=True, slots=True)
class BatchScore:
    """One batch.

    Attributes:
        number: from 0 on.
        strategy: by which the model learned before the batch; None where it did not.
        before: losses that the model would have had without; None where it did not learn.
        losses: of the model that predicted the batch.
        refit_s: processor time of learning.
        trees: of the mean.
    """

    number: int
    strategy: str | None
    before: Losses | None
    losses: Losses
    refit_s: float
    trees: int


def prequential(
    first: Rows,
    batches: Sequence[Rows],
    target: str,
    strategy: str,
    parameters: Parameters,
    seed: int = 0,
    every: int = 1,
) -> list[BatchScore]:
    """Fit to `first`, then for each batch learn from what had finished, and predict it.

    Args:
        first: rows before the batches.
        batches: in time order.
        target: that is predicted.
        strategy: one of `STRATEGIES`, 'auto' or 'static'.
        parameters: of the fits.
        seed: of the fits.
        every: finished rows that learning waits for, unless errors drift.
    """
    model, _ = fit(first, target, parameters, seed)
    chain, scores = begun(Trained(model, model, _record(parameters, 0)), first, is_champion=True), []
    for number, batch in enumerate(batches):
        stale, found = chain.trained.model, None
        if strategy != STATIC:
            chain, found = _learned_until(chain, float(batch.arrived_at_s[0]), strategy, parameters, seed, every)
        chain = scored(chain, batch)
        said = chain.recent.last(len(batch))
        scores.append(
            BatchScore(
                number,
                found.strategy if found else None,
                _losses(stale, batch) if found else None,
                losses_of(batch, said.challenger_ms, said.quantiles_ms),
                found.seconds if found else 0.0,
                chain.trained.model.trees,
            )
        )
    return scores


def _learned_until(
    chain: Chain, now_s: float, strategy: str, parameters: Parameters, seed: int, every: int
) -> tuple[Chain, Learned | None]:
    finished = chain.recent.rows.finished_at_s <= now_s
    recent = chain.recent.only(finished)
    found = due(recent, every, chain.listens_from)
    if not found.now:
        return chain, None
    done = refit(chain, recent, found, strategy, seed, now_s)
    after = done.learned
    parts = 1 if after.strategy == WINDOW else len(chain.trained.record["window"]["parts"]) + 1
    return replace(
        done.chain,
        trained=Trained(after.model, after.twin, _record(parameters, parts)),
        recent=replace(chain.recent, learned=chain.recent.learned | finished),
        known_from_s=now_s,
    ), after


def _record(parameters: Parameters, parts: int) -> dict[str, Any]:
    return {"parameters": parameters.to_dict(), "window": {"parts": [{}] * parts}}


def _losses(model: LatencyModel, rows: Rows) -> Losses:
    return losses_of(rows, model.predict(rows.features), model.predict_quantiles(rows.features))
