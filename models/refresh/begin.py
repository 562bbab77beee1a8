"""Where a chain begins: at a full fit, or at the champion where nothing is remembered of its updates."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from lodestar.models.candidate import Outcome, full_fit
from lodestar.models.dataset import TrainingData, continues
from lodestar.models.parameters import Parameters
from lodestar.models.refresh.chain import Chain
from lodestar.models.refresh.recent import Recent, rows_to_keep
from lodestar.models.refresh.update import Options, Step, advance
from lodestar.models.registry.current import Trained
from lodestar.models.rows import Rows

__all__ = ["begun", "begun_anew", "with_champion"]


def begun(trained: Trained, rows: Rows, is_champion: bool, batches: int = 0, champion: Trained | None = None) -> Chain:
    """Return the chain of a model that was fitted to these rows, after so many batches of a chain before it.

    `champion` is what was in use when it was fitted.
    """
    most = rows_to_keep(trained.record["parameters"])
    return Chain(
        trained=trained,
        before=((-np.inf, trained.held_out),),
        known_from_s=float(rows.finished_at_s.max()) if len(rows) else -np.inf,
        recent=Recent.learned_from(rows, most),
        is_champion=is_champion,
        batches=batches,
        listens_from=int(rows.request_index[-1]) + 1 if len(rows) else 0,
        beside=_hash(champion),
    )


def begun_anew(
    data: TrainingData,
    target: str,
    champion: Trained | None,
    parameters: Parameters,
    options: Options,
    why: str | None,
    batches: int = 0,
) -> tuple[Chain | None, Outcome, Step | None]:
    """Go on from the champion where the dataset does, else fit all of it anew.

    Args:
        data: all of the dataset.
        target: to begin with.
        champion: in use now; None where there is none.
        parameters: of a full fit.
        options: of an update.
        why: a full fit is needed in any case; None where it is not.
        batches: that a chain before was scored on.
    """
    if why is None and champion is None:
        why = "no earlier model"
    if why is None and champion is not None and not continues(data, champion.record):
        why = "the dataset no longer begins with the requests that the current model has seen"
    if why is not None or champion is None:
        return None, full_fit(data, target, parameters, options.seed, champion, why or ""), None
    seen, rows = champion.record["requests_seen"], data.rows[target]
    chain = begun(champion, rows.only(rows.request_index < seen), is_champion=True, batches=batches, champion=champion)
    new = rows.newer_than(seen)
    if not len(new):
        return chain, Outcome("unchanged", f"nothing new since request {seen}: nothing done"), None
    step = advance(data, new, chain, champion, options)
    return step.chain, step.outcome, step


def with_champion(chain: Chain, champion: Trained | None) -> Chain | None:
    """Return the chain beside what is in use now; None where that is another model that has seen as much or more.

    A rollback leaves an older model in use: the chain goes on, and what it predicts counts as its own from then on.
    One that the chain stood beside before, which a model of the same requests did not beat, is no news either.
    """
    beside, known = _hash(champion), chain.beside
    chain = replace(chain, beside=beside)
    if champion is None:
        return replace(chain, is_champion=False)
    if champion.model.text() == chain.trained.model.text():
        nothing = np.zeros(len(chain.recent), dtype=np.bool_)
        return replace(chain, is_champion=True, recent=replace(chain.recent, own=nothing))
    if beside != known and champion.record["requests_seen"] >= chain.trained.record["requests_seen"]:
        return None
    return replace(chain, is_champion=False)


def _hash(trained: Trained | None) -> str:
    """Name a model by its trees; empty for none."""
    return hashlib.sha256(trained.model.text().encode()).hexdigest() if trained else ""
