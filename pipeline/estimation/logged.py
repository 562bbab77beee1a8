"""Logged decisions over ragged candidates: what every estimator starts from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lodestar.data.errors import DataError
from lodestar.pipeline.estimation.shared_prefixes import SharedPrefixes

__all__ = ["LoggedDecisions"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_ROUNDING = 1e-6  # by how much the probabilities of one decision may miss 1


@dataclass(frozen=True, slots=True)
class LoggedDecisions:
    """Decisions of a log in order of arrival, each with candidates of its own number.

    Arrays over candidates hold those of the first decision, then those of the second, and so on: c of them in all.

    Attributes:
        cost: of each decision, lower is better, in any unit, such as TTFT in ms, shape (n,).
        offsets: the candidates of decision i are ``offsets[i]:offsets[i + 1]``, at least one, shape (n + 1,).
        chosen: place of the chosen candidate among all c, shape (n,).
        propensity: probability with which the logging policy chose it, above 0, shape (n,); NaN for all where the log
            tells none, as of a router that does not explore: then the model alone can speak.
        logging: probability that the logging policy gave every candidate, shape (c,); None where the log holds that of
            the choice alone, which cannot tell support violations.
        logger: which logging policy decided, numbered from 0, shape (n,); None: one for all.
        shared: which of the requests share a prefix, of n; None: not known, and intervals do not count on it.
        instance: number of the one that was chosen, the same at every decision, shape (n,); None: not known.

    >>> log = LoggedDecisions(np.ones(2), np.array([0, 2, 5]), np.array([1, 2]), np.full(2, 0.5))
    >>> log.decisions, log.candidates, log.sums(np.arange(5.0)).tolist(), log.decision.tolist()
    (2, 5, [1.0, 9.0], [0, 0, 1, 1, 1])
    """

    cost: Floats
    offsets: Ints
    chosen: Ints
    propensity: Floats
    logging: Floats | None = None
    logger: Ints | None = None
    shared: SharedPrefixes | None = None
    instance: Ints | None = None

    def __post_init__(self) -> None:
        """Refuse what no estimator could read."""
        _check_shapes(self)
        _check_values(self)
        if self.logging is not None:
            self.check_probabilities(self.logging, "logging probability")
            if not np.allclose(self.logging[self.chosen], self.propensity, rtol=1e-6, atol=1e-12):
                raise DataError(
                    "the logging probability of a chosen candidate is not its propensity; expected the same number"
                )

    @property
    def has_propensities(self) -> bool:
        """Whether the decisions can be weighed."""
        return not np.isnan(self.propensity).all()

    @property
    def decisions(self) -> int:
        """Number of decisions, n."""
        return len(self.cost)

    @property
    def candidates(self) -> int:
        """Number of candidates of all decisions, c."""
        return int(self.offsets[-1])

    @property
    def counts(self) -> Ints:
        """Candidates of each decision, shape (n,)."""
        return np.diff(self.offsets)

    @property
    def decision(self) -> Ints:
        """Decision that each candidate belongs to, shape (c,)."""
        return np.repeat(np.arange(self.decisions), self.counts)

    @classmethod
    def of_padded(
        cls, cost: Floats, candidate: Bools, column: Ints, propensity: Floats, logging: Floats | None = None
    ) -> LoggedDecisions:
        """Make them of tables with a column an instance.

        Args:
            cost: shape (n,).
            candidate: whether the instance could be chosen, shape (n, m).
            column: of the chosen candidate, shape (n,).
            propensity: shape (n,).
            logging: probability of every candidate, shape (n, m), if it is logged; what is no candidate does not count.

        >>> both = np.array([[True, True], [False, True]])
        >>> log = LoggedDecisions.of_padded(np.ones(2), both, np.array([1, 1]), np.array([0.5, 1.0]))
        >>> log.offsets.tolist(), log.chosen.tolist()
        ([0, 2, 3], [1, 2])
        """
        candidate = np.asarray(candidate, dtype=np.bool_)
        if candidate.ndim != 2 or len(candidate) != len(column):
            raise DataError(f"candidate has shape {candidate.shape}; expected ({len(column)}, instances)")
        if not ((column >= 0) & (column < candidate.shape[1])).all():
            raise DataError("a chosen column is out of range; leave out decisions that are not logged")
        if not candidate[np.arange(len(column)), column].all():
            raise DataError("a chosen instance is no candidate of its decision; expected one of its candidates")
        offsets = np.concatenate([[0], np.cumsum(candidate.sum(axis=1))])
        place = np.cumsum(candidate, axis=1) - 1
        chosen = offsets[:-1] + place[np.arange(len(column)), column]
        probability = None if logging is None else logging[candidate]
        return cls(cost, offsets, chosen, propensity, probability, instance=column)

    def sums(self, of_candidates: Floats) -> Floats:
        """Add up over the candidates of each decision, shape (c,) → (n,)."""
        return np.asarray(np.add.reduceat(of_candidates, self.offsets[:-1]))

    def check_probabilities(self, probability: Floats, name: str) -> None:
        """Refuse what is no probability over the candidates of each decision."""
        if probability.shape != (self.candidates,):
            raise DataError(f"{name} has shape {probability.shape}; expected ({self.candidates},), one a candidate")
        if not (probability >= 0).all():  # NaN fails here too
            raise DataError(f"{name} must be 0 or more for every candidate")
        total = self.sums(probability)
        worst = float(total[np.argmax(np.abs(total - 1))])
        if not abs(worst - 1) <= _ROUNDING:
            raise DataError(f"{name} of one decision sums to {worst:.6g}; expected 1 over its candidates")

    def only(self, kept: Bools) -> LoggedDecisions:
        """Return the decisions for which `kept`, shape (n,), is true, with their candidates."""
        counts = self.counts
        offsets = np.concatenate([[0], np.cumsum(counts[kept])])
        return LoggedDecisions(
            self.cost[kept],
            offsets,
            offsets[:-1] + (self.chosen - self.offsets[:-1])[kept],
            self.propensity[kept],
            None if self.logging is None else self.logging[np.repeat(kept, counts)],
            None if self.logger is None else self.logger[kept],
            None if self.shared is None else self.shared.only(kept),
            None if self.instance is None else self.instance[kept],
        )


def _check_shapes(log: LoggedDecisions) -> None:
    n = len(log.cost)
    if n == 0 or log.offsets.shape != (n + 1,) or log.offsets[0] != 0 or (np.diff(log.offsets) < 1).any():
        raise DataError(
            f"{n} decisions with offsets {log.offsets.shape}; expected some, and offsets that begin at 0 and grow by "
            "one or more a decision"
        )
    group = None if log.shared is None else log.shared.group
    of_each = {
        "chosen": log.chosen,
        "propensity": log.propensity,
        "logger": log.logger,
        "prefix group": group,
        "instance": log.instance,
    }
    for name, values in of_each.items():
        if values is not None and values.shape != (n,):
            raise DataError(f"{name} has shape {values.shape}; expected ({n},), one value a decision")


def _check_values(log: LoggedDecisions) -> None:
    if not np.isfinite(log.cost).all():
        raise DataError("the cost is not finite for every decision; leave out the requests that did not finish")
    if log.has_propensities and not ((log.propensity > 0) & (log.propensity <= 1 + 1e-9)).all():
        raise DataError("propensity must lie above 0 and at most at 1; log it, or name a --logging-policy")
    if not ((log.chosen >= log.offsets[:-1]) & (log.chosen < log.offsets[1:])).all():
        raise DataError("chosen must be a candidate of its own decision; leave out decisions that are not logged")
