"""Finished requests: joined to the decision that each was, logged, judged, and learned from."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data.schema import CUT_OFF
from lodestar.features.definitions import FEATURES, candidate_features
from lodestar.models.online.brain import Brain
from lodestar.models.online.finished import Finished
from lodestar.pipeline.serve.gateway_line import GatewayLine
from lodestar.pipeline.serve.outcome import Outcome
from lodestar.pipeline.serve.pending import Pending
from lodestar.pipeline.serve.serving import Serving

__all__ = ["Finishing"]

Floats = NDArray[np.float64]

UNKNOWN: Final = "no such decision waits for an outcome"
NO_INSTANCE: Final = "no instance was decided, and none is named"
NOT_A_CANDIDATE: Final = "the instance was no candidate"
NO_TTFT: Final = "no TTFT"
COUNTED_OTHERWISE: Final = "not asked for here: its line counts tokens that are cached, the model's counts do not"
FAILED: Final = "the request failed"


@dataclass(slots=True)
class _Row:
    """A row to learn from."""

    features: Floats
    kind: str
    ttft_ms: float
    tpot_ms: float
    censored: bool
    decided_at_s: float
    finished_at_s: float
    predicted_ms: float
    brain: Brain | None


@dataclass(slots=True)
class Finishing:
    """Takes the outcomes of one batch, one after another, and hands all of them on at its end.

    Attributes:
        serving: what they are outcomes of.
        learned: outcomes that are rows to learn from now.
        logged: outcomes whose decision went into the decision log.
        refused: why → outcomes that are neither.
    """

    serving: Serving
    learned: int = 0
    logged: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    rows: list[_Row] = field(default_factory=list)

    def take(self, outcome: Outcome, now_s: float, line: GatewayLine | None = None) -> str | None:
        """Take one outcome; return why it is refused, or None.

        The features are those of the decision itself, as it was remembered. A request that this server never saw, as
        another part of the gateway routed it, is known by its line alone, without what it added itself.
        """
        self.serving.held.drop(outcome.request_id)
        pending = self.serving.waiting.seen(outcome.request_id)
        if pending is None and line is None:
            return self.refuse(UNKNOWN)
        names = pending.names if pending is not None else line.names if line is not None else ()
        name = outcome.chosen if outcome.chosen is not None else _decided(pending)
        if name is None:
            return self.refuse(NO_INSTANCE)
        if name not in names:
            return self.refuse(NOT_A_CANDIDATE)
        if pending is None and self.serving.counts_uncached:
            return self.refuse(COUNTED_OTHERWISE)
        if pending is not None:
            self.serving.waiting.take(outcome.request_id)
            if pending.chosen is None:
                self.serving.went(pending, names.index(name))
            if self.serving.log is not None:
                self.serving.log.put(pending, outcome)
                self.logged += 1
        why = _not_a_row(outcome)
        if why is not None:
            return self.refuse(why)
        at = names.index(name)
        self.rows.append(_row(outcome, pending, at, now_s) if pending else _row_of_line(outcome, line, at, now_s))
        self.learned += 1
        return None

    def refuse(self, why: str) -> str:
        """Count an outcome that is of no use."""
        self.refused[why] += 1
        self.serving.metrics.outcomes.labels(why).inc()
        return why

    def done(self) -> None:
        """Judge the models by the batch, and learn from it."""
        rows, self.rows = self.rows, []
        if not rows:
            return
        self.serving.metrics.outcomes.labels("taken").inc(len(rows))
        for brain in {id(row.brain): row.brain for row in rows}.values():
            of_brain = [row for row in rows if row.brain is brain and not row.censored]
            if brain is not None and of_brain:
                features = np.stack([row.features for row in of_brain])
                ttft_ms = np.array([row.ttft_ms for row in of_brain])
                self.serving.accuracy.judge(brain, [row.kind for row in of_brain], features, ttft_ms)
        if self.serving.options.learn:
            serves = self.serving.brain  # what an earlier model predicted says nothing of it
            told = [row.predicted_ms if row.brain is serves else math.nan for row in rows]
            self.serving.learner.add(_finished(rows), np.array(told))


def _decided(pending: Pending | None) -> str | None:
    return pending.names[pending.chosen] if pending is not None and pending.chosen is not None else None


def _not_a_row(outcome: Outcome) -> str | None:
    if outcome.status == "error":
        return FAILED
    known = outcome.ttft_ms > 0 or (outcome.status in CUT_OFF and outcome.e2e_ms > 0)
    return None if known else NO_TTFT


def _row(outcome: Outcome, pending: Pending, at: int, now_s: float) -> _Row:
    features = _features(pending.prompt_tokens, pending.snapshot, at)
    row = _made(outcome, features, pending.kinds[at], pending.decided_at_s, now_s)
    row.brain = pending.brain
    row.predicted_ms = math.nan if pending.predicted_ms is None else float(pending.predicted_ms[at])
    return row


def _row_of_line(outcome: Outcome, line: GatewayLine | None, at: int, now_s: float) -> _Row:
    assert line is not None
    took_s = outcome.e2e_ms / 1e3 if outcome.e2e_ms > 0 else 0.0
    features = _features(line.prompt_tokens, line.snapshot, at)
    return _made(outcome, features, line.kinds[at], now_s - took_s, now_s)


def _features(prompt_tokens: int, snapshot: Floats, at: int) -> Floats:
    every = np.empty((len(snapshot), len(FEATURES)))
    candidate_features(float(prompt_tokens) if prompt_tokens > 0 else math.nan, snapshot, every)
    return np.array(every[at])


def _made(outcome: Outcome, features: Floats, kind: str, decided_at_s: float, now_s: float) -> _Row:
    """Make a row; a request ends when its last token comes, which its line may tell much later."""
    known = outcome.ttft_ms > 0
    finished_at_s = decided_at_s + outcome.e2e_ms / 1e3 if outcome.e2e_ms > 0 else now_s
    return _Row(
        features=features,
        kind=kind,
        ttft_ms=outcome.ttft_ms if known else outcome.e2e_ms,
        tpot_ms=outcome.tpot_ms if outcome.tpot_ms > 0 else math.nan,
        censored=not known,
        decided_at_s=decided_at_s,
        finished_at_s=min(finished_at_s, now_s),
        predicted_ms=math.nan,
        brain=None,
    )


def _finished(rows: Sequence[_Row]) -> Finished:
    return Finished(
        features=np.stack([row.features for row in rows]),
        kind=np.array([row.kind for row in rows], dtype=np.str_),
        ttft_ms=np.array([row.ttft_ms for row in rows]),
        tpot_ms=np.array([row.tpot_ms for row in rows]),
        censored=np.array([row.censored for row in rows]),
        decided_at_s=np.array([row.decided_at_s for row in rows]),
        finished_at_s=np.array([row.finished_at_s for row in rows]),
    )
