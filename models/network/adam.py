"""Adam (Kingma and Ba, 2015), as PyTorch's: weight decay adds to the gradient, after it was clipped."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Adam"]

Singles = NDArray[np.float32]

FIRST: Final = 0.9  # share of the running mean that stays
SECOND: Final = 0.999  # share of the running mean of squares that stays
TINY: Final = 1e-8


class Adam:
    """Updates arrays in place."""

    def __init__(self, arrays: list[Singles], weight_decay: float = 0.0, clip_norm: float = np.inf) -> None:
        """Take over `arrays`; gradients are scaled down to `clip_norm` where all of them together are longer."""
        self._arrays, self._weight_decay, self._clip_norm = arrays, weight_decay, clip_norm
        self._mean = [np.zeros_like(array) for array in arrays]
        self._square = [np.zeros_like(array) for array in arrays]
        self._steps = 0

    def step(self, gradients: list[Singles], rate: float) -> None:
        """Go one step along `gradients`, one an array.

        The first step is `rate` long in every direction, whatever the gradient.

        >>> array = np.zeros(2, dtype=np.float32)
        >>> Adam([array]).step([np.array([4.0, -0.5], dtype=np.float32)], 0.1)
        >>> array.round(3).tolist()
        [-0.10000000149011612, 0.10000000149011612]
        """
        self._steps += 1
        shrink = self._shrink(gradients)
        for array, gradient, mean, square in zip(self._arrays, gradients, self._mean, self._square, strict=True):
            pull = gradient * shrink + np.float32(self._weight_decay) * array
            mean += (1.0 - FIRST) * (pull - mean)
            square += (1.0 - SECOND) * (pull * pull - square)
            unbiased = np.sqrt(square / (1.0 - SECOND**self._steps)) + TINY
            array -= rate / (1.0 - FIRST**self._steps) * mean / unbiased

    def _shrink(self, gradients: list[Singles]) -> np.float32:
        norm = float(np.sqrt(sum(float((gradient * gradient).sum()) for gradient in gradients)))
        return np.float32(min(1.0, self._clip_norm / max(norm, TINY)))
