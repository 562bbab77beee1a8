"""What the published loop learns from, and when: samples, two buffers, and a network from scratch each round."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lodestar.features.definitions import FEATURES
from lodestar.models.network.network import PublishedNetwork, network_inputs
from lodestar.models.network.replay_buffer import TrainingBuffers
from lodestar.pipeline.online.published_settings import PublishedSettings

__all__ = ["PublishedLearner", "Ranges", "Trained"]

Floats = NDArray[np.float64]


class Ranges(NamedTuple):
    """Least and greatest value of every input, shape (inputs,)."""

    low: Floats
    high: Floats

    @classmethod
    def of(cls, features: Floats) -> Ranges:
        """Return those of rows (n, len(FEATURES) + kinds); of none, the empty range."""
        inputs = network_inputs(features)
        return cls(inputs.min(axis=0, initial=np.inf), inputs.max(axis=0, initial=-np.inf))

    def joined(self, other: Ranges) -> Ranges:
        """Return the ranges that hold both."""
        return Ranges(np.minimum(self.low, other.low), np.maximum(self.high, other.high))


class Trained(NamedTuple):
    """A network with the ranges that it knows.

    Attributes:
        network: that was trained.
        ranges: of its inputs, over all candidates of the samples.
        rows: samples that there were, with those held out.
    """

    network: PublishedNetwork
    ranges: Ranges
    rows: int

    def outside(self, features: Floats) -> NDArray[np.bool_]:
        """Say of which rows (m, len(FEATURES) + kinds) a decision sees an input outside the ranges, shape (m,)."""
        inputs = self.network.decided_on(features)
        return np.asarray(((inputs < self.ranges.low) | (inputs > self.ranges.high)).any(axis=1))


class PublishedLearner:
    """Samples that have come since the last training, and the two buffers of those before.

    Attributes:
        settings: of the policy.
        trained: by the last round; None before the first.
        rounds: so far.
        samples: rows that have come since the last training.
    """

    def __init__(self, settings: PublishedSettings, kinds: int, seed: int) -> None:
        """Begin without samples; rows have `kinds` columns behind the features."""
        self.settings, self.rounds = settings, 0
        self.trained: Trained | None = None
        self._seed, self._width = seed, len(FEATURES) + kinds
        self._buffers = TrainingBuffers.empty(self._width, settings.buffer_requests)
        self._new: list[Floats] = []
        self._new_ms: list[Floats] = []
        self._ranges = Ranges.of(np.empty((0, self._width)))

    @property
    def samples(self) -> int:
        """Return how many have come since the last training."""
        return sum(map(len, self._new_ms))

    @property
    def due(self) -> bool:
        """Say whether there are samples enough for a training."""
        enough = self.settings.update_requests if self.rounds else self.settings.min_training_requests
        return self.samples >= max(enough, 1)

    def add(self, features: Floats, ttft_ms: Floats, others: Ranges | None = None) -> None:
        """Take in the samples of a flush, without those that are too slow to be one.

        Args:
            features: of the chosen candidates, shape (n, len(FEATURES) + kinds).
            ttft_ms: shape (n,).
            others: ranges of the other candidates' inputs.
        """
        ranges = Ranges.of(features)
        self._ranges = self._ranges.joined(ranges if others is None else ranges.joined(others))
        kept = ttft_ms <= (self.settings.longest_ms or np.inf)
        self._new.append(features[kept])
        self._new_ms.append(ttft_ms[kept])

    def train(self) -> Trained:
        """Train a network from scratch on the new samples and both buffers, and let the samples into the buffers."""
        new, new_ms = np.concatenate(self._new), np.concatenate(self._new_ms)
        rows, rows_ms = self._buffers.training_rows(new, new_ms)
        learned = self._learned(len(rows))
        network = PublishedNetwork(self._seed + self.rounds, self.settings.network).fit(rows[learned], rows_ms[learned])
        previous = None if self.trained is None else self.trained.network
        self._buffers = self._buffers.add(new, new_ms, previous, self._seed)
        self.trained, self.rounds = Trained(network, self._ranges, len(rows)), self.rounds + 1
        self._new, self._new_ms = [], []
        return self.trained

    def _learned(self, rows: int) -> NDArray[np.int64]:
        """Return the rows that are not held out, drawn anew each round."""
        order = np.random.default_rng([self._seed, 2, self.rounds]).permutation(rows)
        return np.sort(order[: max(round(rows * (1.0 - self.settings.held_out_ratio)), 1)])
