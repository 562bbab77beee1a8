"""The reward network that Lodestar published (arXiv 2606.00946), in NumPy: a peer to compare with, and a policy's core.

One multilayer perceptron scores every instance: 10 inputs, three hidden layers of 128 with ReLU, dropout 0.1 after the
first two, one output, the reward ``-TTFT / 1 s``. It is trained from scratch each round: mean squared error, Adam at
3e-4 with weight decay 1e-5, learning rate times 0.95 an epoch, gradients clipped to norm 1, batches of 256, 20 epochs,
z-scores of the training rows. What the released code does besides, against its own intent, are switches of
`NetworkSettings`, off by default.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lodestar.data import schema
from lodestar.data.errors import DataError
from lodestar.features.definitions import FEATURE_NAMES
from lodestar.models.network.adam import Adam
from lodestar.models.network.products import product

__all__ = ["NETWORK_INPUTS", "NetworkSettings", "PublishedNetwork", "network_inputs"]

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Layers = list[tuple[Singles, Singles]]

#: The published inputs, by our names; the GPU one-hot is left out, as in the published configuration of one GPU type.
NETWORK_INPUTS: Final = (
    schema.INFLIGHT_PREFILL_REQUESTS,
    schema.INFLIGHT_DECODE_REQUESTS,
    schema.KV_USAGE_RATIO,
    schema.RUNNING_REQUESTS,
    schema.WAITING_REQUESTS,
    schema.PREFILL_TOKENS,
    schema.DECODE_TOKENS,
    "fresh_hit_ratio",
    schema.HIT_RATIO,
    schema.PROMPT_TOKENS,
)
_COLUMNS: Final = [FEATURE_NAMES.index(name) for name in NETWORK_INPUTS]
_IN_FLIGHT: Final = [0, 1]  # columns that the released router fills after its decision
MS_PER_REWARD: Final = -1000.0


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """What was published, and the quirks of the released code.

    Attributes:
        epochs: passes over the rows of a round.
        dropout_at_inference: the release never switches to evaluation, so its decisions are noisy.
        no_in_flight_at_inference: the release asks before it fills in the in-flight requests, and reads 0.
        longest_ms: the release drops slower requests (15,000) from training: the tail is cut off. None keeps all.
    """

    width: int = 128
    dropout: float = 0.1
    learning_rate: float = 3e-4
    weight_decay: float = 1e-5
    decay_per_epoch: float = 0.95
    clip_norm: float = 1.0
    batch: int = 256
    epochs: int = 20
    dropout_at_inference: bool = False
    no_in_flight_at_inference: bool = False
    longest_ms: float | None = None


def network_inputs(features: Floats) -> Floats:
    """Return the network's inputs (n, 10 + kinds) of `features` (n, len(FEATURES) + kinds).

    Columns behind the features are 1 for the kind of the instance and 0 for the others. A missing value is 0, as in
    the release.

    >>> network_inputs(np.full((1, len(FEATURE_NAMES)), np.nan)).tolist()
    [[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]
    """
    inputs = features[:, [*_COLUMNS, *range(len(FEATURE_NAMES), features.shape[1])]]
    inputs[np.isnan(inputs)] = 0.0
    return inputs


class PublishedNetwork:
    """The network of one round; `fit` begins anew each time."""

    def __init__(self, seed: int = 0, settings: NetworkSettings | None = None) -> None:
        """Prepare it; the seed fixes the weights, the batches and the dropout."""
        self.settings = settings or NetworkSettings()
        self._seed = seed
        self._layers: Layers = []
        self._mean, self._scale = np.zeros(len(NETWORK_INPUTS)), np.ones(len(NETWORK_INPUTS))
        self._noise = np.random.default_rng([seed, 1])

    def fit(self, features: Floats, ttft_ms: Floats) -> PublishedNetwork:
        """Train from scratch on the chosen candidates.

        Args:
            features: shape (n, len(FEATURES) + kinds), see `network_inputs`.
            ttft_ms: shape (n,).

        Raises:
            DataError: no row is left.

        >>> features = np.zeros((512, len(FEATURE_NAMES)))
        >>> features[:, FEATURE_NAMES.index("prefill_tokens")] = np.linspace(0.0, 9000.0, 512)
        >>> ttft_ms = 100.0 + 0.2 * features[:, FEATURE_NAMES.index("prefill_tokens")]
        >>> network = PublishedNetwork(0, NetworkSettings(batch=16)).fit(features, ttft_ms)
        >>> float(np.abs(network.predict(features) - ttft_ms).mean()) < 100.0
        True
        """
        keep = ttft_ms <= (np.inf if self.settings.longest_ms is None else self.settings.longest_ms)
        if not keep.any():
            raise DataError(
                f"{len(ttft_ms)} rows, none of at most {self.settings.longest_ms} ms; expected one to learn from"
            )
        inputs, reward = network_inputs(features[keep]), (ttft_ms[keep] / MS_PER_REWARD).astype(np.float32)
        self._mean, spread = inputs.mean(axis=0), inputs.std(axis=0)
        # What never varied teaches nothing, and stays 0 if it varies later, as in the release.
        self._scale = np.where(spread > 0.0, spread, np.inf)
        self._mean[len(NETWORK_INPUTS) :], self._scale[len(NETWORK_INPUTS) :] = 0.0, 1.0  # kinds are taken as they are
        self._train(self._standard(inputs), reward)
        return self

    def predict(self, features: Floats) -> Floats:
        """Return the predicted TTFT in ms of every row (n, len(FEATURES) + kinds); it may be less than 0."""
        return self.rewards(features).astype(np.float64) * MS_PER_REWARD

    def rewards(self, features: Floats) -> Singles:
        """Return the predicted reward of every row, -TTFT in s, with the quirks of a decision."""
        noise = self._noise if self.settings.dropout_at_inference else None
        return self._forward(self._trained_on(self.decided_on(features)), noise)[1]

    def decided_on(self, features: Floats) -> Floats:
        """Return the inputs of a decision, (n, inputs): without what the release has not filled in by then."""
        inputs = network_inputs(features)
        if self.settings.no_in_flight_at_inference:
            inputs[:, _IN_FLIGHT] = 0.0
        return inputs

    def taught(self, features: Floats) -> tuple[Singles, Floats]:
        """Return the activations before the output, (n, width), and the predicted TTFT in ms, as in training.

        Without dropout, and with everything that a training row has: how the replay buffer tells rows apart.
        """
        entering, rewards = self._forward(self._trained_on(network_inputs(features)), None)
        return entering[-1], rewards.astype(np.float64) * MS_PER_REWARD

    def _trained_on(self, inputs: Floats) -> Singles:
        if not self._layers:
            raise DataError("this network was not trained; expected a call of fit first")
        return self._standard(inputs)

    def _standard(self, inputs: Floats) -> Singles:
        return ((inputs - self._mean) / self._scale).astype(np.float32)

    def _train(self, inputs: Singles, reward: Singles) -> None:
        settings, rng = self.settings, np.random.default_rng([self._seed, 0])
        self._layers = _xavier([inputs.shape[1], *[settings.width] * 3, 1], rng)
        adam = Adam([array for layer in self._layers for array in layer], settings.weight_decay, settings.clip_norm)
        for epoch in range(settings.epochs):
            order, rate = rng.permutation(len(inputs)), settings.learning_rate * settings.decay_per_epoch**epoch
            for start in range(0, len(order), settings.batch):
                rows = order[start : start + settings.batch]
                adam.step(self._gradients(inputs[rows], reward[rows], rng), rate)

    def _forward(self, x: Singles, noise: np.random.Generator | None) -> tuple[list[Singles], Singles]:
        """Return what enters each layer, and the rewards; `noise` drops activations, as in training."""
        entering = [x]
        for index, (weight, bias) in enumerate(self._layers[:-1]):
            x = product(x, weight)
            x += bias
            np.maximum(x, 0.0, out=x)
            if noise is not None and index < 2:
                kept = noise.random(x.shape, dtype=np.float32) >= self.settings.dropout
                x *= kept
                x *= 1.0 / (1.0 - self.settings.dropout)
            entering.append(x)
        weight, bias = self._layers[-1]
        return entering, product(x, weight)[:, 0] + bias

    def _gradients(self, x: Singles, reward: Singles, rng: np.random.Generator) -> list[Singles]:
        """Return the gradients of the mean squared error, in the order of the weights: backpropagation by hand."""
        entering, predicted = self._forward(x, rng)
        flowing = ((predicted - reward) * np.float32(2.0 / len(x)))[:, None]
        gradients: list[Singles] = []
        for index in reversed(range(len(self._layers))):
            gradients[:0] = [product(entering[index].T, flowing), flowing.sum(axis=0)]
            if index:
                # Where dropout or ReLU left 0, nothing flows; elsewhere dropout has scaled it up.
                flowing = product(flowing, np.ascontiguousarray(self._layers[index][0].T))
                flowing *= entering[index] > 0.0
                if index <= 2:
                    flowing *= 1.0 / (1.0 - self.settings.dropout)
        return gradients


def _xavier(widths: list[int], rng: np.random.Generator) -> Layers:
    """Draw weights uniformly within ± sqrt(6 / (inputs + outputs)) (Glorot and Bengio 2010); biases are 0."""
    layers: Layers = []
    for inputs, outputs in pairwise(widths):
        limit = np.sqrt(6.0 / (inputs + outputs))
        weight = rng.uniform(-limit, limit, (inputs, outputs)).astype(np.float32)
        layers.append((weight, np.zeros(outputs, dtype=np.float32)))
    return layers
