"""What Lodestar's network is trained on in each round: the new rows, the newest, and rows kept for their variety."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lodestar.models.network.network import PublishedNetwork
from lodestar.models.network.products import product

__all__ = ["TrainingBuffers", "k_center"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CAPACITY: Final = 5000  # published: of either buffer


@dataclass(frozen=True, slots=True)
class TrainingBuffers:
    """A first-in-first-out buffer, and a replay buffer of rows that were pushed out of it; all by dispatch number.

    The replay keeps the rows that differ most in what they would teach: last-hidden activation times error by the
    previous round's network, chosen by greedy k-center; at random while there is no network. Every row is in one of
    the two, so their union repeats none.

    Attributes:
        newest: features of the newest rows, oldest first, shape (n, len(FEATURES)).
        newest_ms: their TTFT.
        replay: features of the rows kept.
        replay_ms: their TTFT.
        capacity: of either buffer.
    """

    newest: Floats
    newest_ms: Floats
    replay: Floats
    replay_ms: Floats
    capacity: int = CAPACITY

    @classmethod
    def empty(cls, features: int, capacity: int = CAPACITY) -> TrainingBuffers:
        """Return buffers for rows of so many features."""
        return cls(np.empty((0, features)), np.empty(0), np.empty((0, features)), np.empty(0), capacity)

    def training_rows(self, new: Floats, new_ms: Floats) -> tuple[Floats, Floats]:
        """Return the training set of a round: new batch, newest rows and replay."""
        return np.concatenate([self.replay, self.newest, new]), np.concatenate([self.replay_ms, self.newest_ms, new_ms])

    def add(self, new: Floats, new_ms: Floats, network: PublishedNetwork | None, seed: int) -> TrainingBuffers:
        """Return the buffers after a round: what the new rows push out competes for a place in the replay.

        Args:
            new: features of the batch, shape (n, len(FEATURES)).
            new_ms: its TTFT.
            network: of the previous round; None in the first, where the choice is random.
            seed: of that random choice.
        """
        newest, newest_ms = np.concatenate([self.newest, new]), np.concatenate([self.newest_ms, new_ms])
        out = max(len(newest) - self.capacity, 0)
        pool = np.concatenate([self.replay, newest[:out]])
        pool_ms = np.concatenate([self.replay_ms, newest_ms[:out]])
        kept = self._kept(pool, pool_ms, network, seed)
        return TrainingBuffers(newest[out:], newest_ms[out:], pool[kept], pool_ms[kept], self.capacity)

    def _kept(self, pool: Floats, pool_ms: Floats, network: PublishedNetwork | None, seed: int) -> Ints:
        if len(pool) <= self.capacity:
            return np.arange(len(pool))
        if network is None:
            return np.sort(np.random.default_rng(seed).choice(len(pool), self.capacity, replace=False))
        activations, predicted_ms = network.taught(pool)
        error = (np.abs(pool_ms - predicted_ms) / 1000.0).astype(activations.dtype)
        return np.sort(k_center(activations * error[:, None], self.capacity))


def k_center(vectors: NDArray[np.floating[Any]], count: int) -> Ints:
    """Choose `count` rows so that none is far from a chosen one: greedily the farthest, by cosine distance.

    The first is the longest vector (Sener and Savarese 2018, whose core-set this is).

    >>> k_center(np.array([[1.0, 0.0], [3.0, 0.1], [0.0, 2.0], [-1.0, 0.0]]), 3).tolist()
    [1, 3, 2]
    """
    length = np.linalg.norm(vectors, axis=1)
    unit = vectors / np.maximum(length, np.finfo(np.float64).tiny)[:, None]
    chosen = np.empty(min(count, len(vectors)), dtype=np.int64)
    farthest, distance = int(length.argmax()), np.full(len(vectors), np.inf)
    for place in range(len(chosen)):
        chosen[place] = farthest
        distance = np.minimum(distance, 1.0 - product(unit, unit[farthest]))
        distance[farthest] = -1.0
        farthest = int(distance.argmax())
    return chosen
