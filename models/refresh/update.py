"""One target brought up to date: scored on what is new, and refitted where that is due."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from lodestar.models.candidate import Outcome
from lodestar.models.dataset import TrainingData
from lodestar.models.evaluation.held_out import evaluate
from lodestar.models.parameters import Parameters
from lodestar.models.refresh.chain import Chain
from lodestar.models.refresh.due import due
from lodestar.models.refresh.learn import Learned
from lodestar.models.refresh.losses import Losses, losses_of
from lodestar.models.refresh.recent import Recent
from lodestar.models.refresh.refit import Refit, refit
from lodestar.models.refresh.score import scored
from lodestar.models.refresh.strategies import CONTINUE, REFIT, WINDOW
from lodestar.models.registry.current import Trained
from lodestar.models.registry.promotion import Verdict, golden_check, judge
from lodestar.models.registry.record import record_of
from lodestar.models.rivals import constant_rival, linear_rival
from lodestar.models.rows import Rows

__all__ = ["MODES", "BatchLosses", "Options", "Step", "advance"]

#: Strategy → mode of the outcome.
MODES: Final = {CONTINUE: "extended", WINDOW: "windowed", REFIT: "refitted"}


@dataclass(frozen=True, slots=True)
class Options:
    """How to update: the strategy, the rows to wait for, and the seed."""

    strategy: str
    every: int
    seed: int


@dataclass(frozen=True, slots=True)
class BatchLosses:
    """Errors of one batch, and what a refit brought.

    Attributes:
        number: of the batch, from 1 on.
        challenger: of the newest model as it was when each request was decided.
        champion: of the model in use; None where there is none.
        before: of the newest model on the newest of the rows that waited; None where nothing was fitted.
        after: of the refitted one on the same, before it learned from them.
        seconds: of processor time that the refit took, with what measured it.
        trees: of the mean.
    """

    number: int
    challenger: Losses
    champion: Losses | None
    trees: int
    before: Losses | None = None
    after: Losses | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """What an update left: the chain, what became of the target, and the errors of the batch."""

    chain: Chain
    outcome: Outcome
    losses: BatchLosses


def advance(data: TrainingData, new: Rows, chain: Chain, champion: Trained | None, options: Options) -> Step:
    """Score the new rows, learn from all that wait if that is due, and judge what was learned.

    Args:
        data: identity of the dataset as it is now.
        new: rows that the chain has not seen; at least one.
        chain: as it was.
        champion: in use now; None where there is none.
        options: see `Options`.
    """
    chain = scored(chain, new)
    losses = _losses(chain, new, champion)
    found = due(chain.recent, options.every, chain.listens_from)
    if not found.now:
        return Step(chain, Outcome("scored", f"{found.reason}: scored and calibrated, nothing fitted"), losses)
    done = refit(chain, chain.recent, found, options.strategy, options.seed, np.inf)
    return _judged(data, chain, champion, options.seed, done, losses)


def _judged(
    data: TrainingData,
    chain: Chain,
    champion: Trained | None,
    seed: int,
    done: Refit,
    losses: BatchLosses,
) -> Step:
    after, recent = done.learned, _with_twin(chain.recent, done.learned)
    stated_ms = recent.last(len(after.newest)).quantiles_ms  # the twin's own are corrected by these very rows
    metrics = evaluate(after.twin, after.training, after.newest, stated_ms)
    record = _record(data, chain, after, seed, metrics)
    verdict = judge(_evidence(recent, champion), golden_check(after.model, record["feature_ranges"]))
    trained = Trained(after.model, after.twin, record)
    outcome = Outcome(MODES[after.strategy], done.why, verdict, trained, metrics, None, after.from_rows)
    return Step(_next(done.chain, trained, recent, verdict), outcome, _told(losses, chain.recent, recent, after))


def _losses(chain: Chain, new: Rows, champion: Trained | None) -> BatchLosses:
    said = chain.recent.last(len(new))
    theirs = None
    if champion is not None:
        model = champion.model
        theirs = losses_of(new, model.predict(new.features), model.predict_quantiles(new.features))
    ours = losses_of(new, said.challenger_ms, said.quantiles_ms)
    return BatchLosses(chain.batches, ours, theirs, chain.trained.model.trees)


def _told(losses: BatchLosses, before: Recent, after: Recent, found: Learned) -> BatchLosses:
    count = len(found.newest)
    was, now = before.last(count), after.last(count)
    return replace(
        losses,
        before=losses_of(found.newest, was.challenger_ms, was.quantiles_ms),
        after=losses_of(found.newest, now.challenger_ms, now.quantiles_ms),
        seconds=found.seconds,
        trees=found.model.trees,
    )


def _with_twin(recent: Recent, after: Learned) -> Recent:
    """Let the twin, which had not seen the newest rows, tell their mean, and rivals that know as much as it does.

    The quantiles stay as they were stated.
    """
    newest = np.arange(len(recent)) >= len(recent) - len(after.newest)
    said = {
        "challenger_ms": after.mean_ms,
        "constant_ms": constant_rival(after.training, after.newest.features),
        "linear_ms": linear_rival(after.training, after.newest.features),
    }
    columns = {name: getattr(recent, name).copy() for name in said}
    for name, column in columns.items():
        column[newest] = said[name]
    return replace(recent, **columns, own=recent.own | newest)


def _evidence(recent: Recent, champion: Trained | None) -> Any:
    if champion is None:
        return recent.evidence(None, 0)
    return recent.evidence(champion.model, champion.record["requests_seen"])


def _record(data: TrainingData, chain: Chain, after: Learned, seed: int, metrics: dict[str, Any]) -> dict[str, Any]:
    """Write down what the model has learned from; a window begins anew, all else goes on from what was learned."""
    before = None if after.strategy == WINDOW else chain.trained.record
    parameters = Parameters(**chain.trained.record["parameters"])
    first = int(after.newest.request_index[0])
    record = record_of(data, after.from_rows, first, parameters, seed, metrics, before)
    seen = data.seen.to_dict() if data.seen else None
    return record | {"requests_seen": after.from_rows.requests, "seen": seen, "strategy": after.strategy}


def _next(chain: Chain, trained: Trained, recent: Recent, verdict: Verdict) -> Chain:
    own = recent.own & (not verdict.promoted)
    return replace(
        chain,
        trained=trained,
        known_from_s=max(chain.known_from_s, float(recent.rows.finished_at_s[~recent.learned].max())),
        recent=replace(recent.all_learned(), own=own),
        is_champion=verdict.promoted,
    )
